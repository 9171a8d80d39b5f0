"""What tests of pictures and reports share."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from daso.data.formats.arrays import from_arrays
from daso.data.source import Source
from daso.train.prepare import prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from report_visit import Reports


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


@pytest.fixture(scope="module")
def many_classes(
    tiny_config: MakeConfig, digits: Source, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a run of 40 classes, turned digits, whose unlabeled images have no truth."""
    assert digits.test is not None
    images = np.concatenate(
        [np.rot90(digits.train.images[:400], turn, (2, 3)) for turn in range(4)]
    )
    labels = np.concatenate([digits.train.labels[:400] + 10 * turn for turn in range(4)])
    test = np.concatenate([np.rot90(digits.test.images[:200], turn, (2, 3)) for turn in range(4)])
    answers = np.concatenate([digits.test.labels[:200] + 10 * turn for turn in range(4)])
    seen = np.array([np.sum(labels[:i] == k) for i, k in enumerate(labels)])
    hidden = np.where(seen < 2 + (40 - labels) // 8, labels, -1)
    source = from_arrays(images, hidden, test_images=test, test_labels=answers)
    folder = tmp_path_factory.mktemp("many") / "run"
    config = tiny_config(
        "fixmatch+daso", steps=12, evaluate_every=4, method_options={"warmup_steps": 2}
    )
    list(
        train_run(prepare(dataclasses.replace(config, split=type(config.split)()), source), folder)
    )
    return folder


@pytest.fixture
def visit(browser: Browser) -> Iterator[Reports]:
    """Return a visit, whose pages are closed after the test; they ask for nothing but themselves."""
    from report_visit import Reports

    visit = Reports(browser)
    yield visit
    visit.close()
    assert visit.errors == []
    assert set(visit.requests) <= visit.opened
