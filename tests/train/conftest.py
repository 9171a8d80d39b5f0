"""What the tests of training share."""

from __future__ import annotations

import pytest

from daso.train import environment


@pytest.fixture(autouse=True, scope="session")
def _same_commit() -> None:
    """Leave git out: a run that is resumed tells if the commit has changed, and it may while tests run."""
    environment._commit = lambda: "0123456789ab"
