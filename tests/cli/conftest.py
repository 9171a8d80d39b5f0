"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daso.cli import main

Say = Callable[..., tuple[int, str]]
"""Runs the command line; returns status and what was printed."""


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.err + said.out

    return run
