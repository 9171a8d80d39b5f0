"""A pretended device, float64, runs on a frozen backbone, and runs of several stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_cuda import PretendCuda, pretend_cuda
from staged_runs import FindRun, Finished, make_staged

from daso.data.source import Source
from daso.train.config import RunConfig
from tests.conftest import MakeConfig


@pytest.fixture
def cuda() -> Iterator[PretendCuda]:
    with pretend_cuda() as device:
        yield device


@pytest.fixture
def make_frozen(tiny_config: MakeConfig, tmp_path: Path) -> MakeConfig:
    """Return a function that makes the configuration of a training on embeddings."""

    def config(method: str = "fixmatch+daso", **train: Any) -> RunConfig:
        options = {
            "network": None,
            "freeze": True,
            "embedding_folder": str(tmp_path / "embeddings"),
            "steps": 30,
            "evaluate_every": 10,
        }
        return tiny_config(method, **(options | train))

    return config


@pytest.fixture(scope="session")
def finished(
    tiny_config: MakeConfig, digits: Source, tmp_path_factory: pytest.TempPathFactory
) -> FindRun:
    """Return a function that gives the complete run of a method; it is trained once."""
    runs: dict[str, Finished] = {}

    def find(method: str) -> Finished:
        if method not in runs:
            folder = tmp_path_factory.mktemp("stages") / "run"
            runs[method] = Finished(make_staged(tiny_config, method), digits, folder)
        return runs[method]

    return find
