"""What tests of pictures share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@pytest.fixture
def without_warnings() -> Iterator[None]:
    """Let a warning of numpy or matplotlib be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture
def axis() -> Axes:
    """Return empty axes."""
    return Figure().subplots()
