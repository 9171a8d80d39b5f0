"""The numbers that a run quotes."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest

from daso.evaluate.summary import QUOTED_EVALUATIONS, summarize
from daso.files import plain

Row = dict[str, Any]


def metrics(value: float) -> Row:
    numbers = {"accuracy": value, "balanced_accuracy": value / 2, "recall_few": math.nan}
    lists = {"recall": [value, 0.0, math.nan], "precision": [math.nan, value, 1.0]}
    return {**numbers, **lists, "logit_adjusted": {"accuracy": value / 4, "recall": [value / 8]}}


def evaluation(step: int, test: float | None = None, holdout: float | None = None) -> Row:
    row: Row = {"event": "evaluate", "step": step}
    pools = {"test": test, "holdout": holdout}
    return row | {name: metrics(value) for name, value in pools.items() if value is not None}


def test_nothing_measured() -> None:
    assert summarize([]) == {}
    assert summarize([{"event": "train", "step": 5, "loss": 1.0}, evaluation(5)]) == {}


def test_the_three_answers() -> None:
    # Sixteen evaluations: the last quarter, four of them, is quoted.
    values = [0.9, 0.1] * 6 + [0.5, 0.2, 0.8, 0.3]
    holdout = [0.1] * 16
    holdout[2] = 0.7
    rows = [
        evaluation(5 * n, v, h) for n, (v, h) in enumerate(zip(values, holdout, strict=True), 1)
    ]
    rows.insert(3, {"event": "train", "step": 16})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarize(rows)
    assert summary["measured_on"] == "test"
    assert summary["evaluations"] == 4
    assert summary["median_of_last"]["accuracy"] == pytest.approx(0.4)
    assert summary["accuracy"] == pytest.approx(0.4)
    assert summary["balanced_accuracy"] == pytest.approx(0.2)
    np.testing.assert_allclose(summary["per_class_recall"], [0.4, 0.0, math.nan])
    np.testing.assert_allclose(summary["median_of_last"]["precision"], [math.nan, 0.4, 1.0])
    assert math.isnan(summary["median_of_last"]["recall_few"])
    assert summary["median_of_last"]["logit_adjusted"]["recall"] == pytest.approx([0.05])
    assert summary["last"]["accuracy"] == 0.3
    assert summary["best_on_holdout"]["step"] == 15
    assert summary["best_on_holdout"]["accuracy"] == 0.9


def test_a_long_run_quotes_its_last_twenty_evaluations() -> None:
    rows = [evaluation(n, n / 500) for n in range(1, 501)]
    summary = summarize(rows)
    assert summary["evaluations"] == QUOTED_EVALUATIONS == 20
    assert summary["accuracy"] == pytest.approx(np.median([n / 500 for n in range(481, 501)]))
    assert "best_on_holdout" not in summary


def test_a_single_evaluation_is_quoted() -> None:
    summary = summarize([evaluation(5, 0.5)])
    assert (summary["evaluations"], summary["accuracy"], summary["last"]["accuracy"]) == (
        1,
        0.5,
        0.5,
    )


def test_without_test_images_the_holdout_is_measured_on() -> None:
    summary = summarize(
        [evaluation(5, None, 0.2), evaluation(10, None, 0.6), evaluation(15, None, 0.4)]
    )
    assert summary["measured_on"] == "holdout"
    assert "best_on_holdout" not in summary  # it would be chosen and measured on the same images
    assert summary["last"]["accuracy"] == 0.4


def test_a_summary_of_rows_from_a_file_is_the_same() -> None:
    rows = [evaluation(5 * n, n / 50, n / 60) for n in range(1, 41)]
    from_file = json.loads(json.dumps(plain(rows)))
    assert plain(summarize(from_file)) == plain(summarize(rows))
