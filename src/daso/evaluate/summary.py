"""From a run's evaluation rows to the numbers that are quoted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from daso.files import Row

QUOTED_EVALUATIONS = 20
"""The DASO paper reports the median over the last 20 evaluations, of 500."""
QUOTED_SHARE = 0.25
"""Of a short run with few evaluations at most this share is quoted: earlier ones belong to a worse network."""


def _median(metrics: Sequence[Row]) -> Row:
    """Return the median of every number, of per-class lists class by class; NaN where all are NaN."""
    result: Row = {}
    for name, first in metrics[0].items():
        values = [m[name] for m in metrics]
        if isinstance(first, dict):
            result[name] = _median(values)
        else:
            stacked = np.array(values, dtype=float)  # None, as a file has it, becomes NaN
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", RuntimeWarning
                )  # all NaN: a class that was never measured
                result[name] = np.nanmedian(stacked, axis=0).tolist()
    return result


def summarize(rows: Sequence[Row]) -> Row:
    """Summarise the ``"evaluate"`` rows of a run.

    Returns:
        ``measured_on`` (``"test"``, or ``"holdout"`` where there is no test set), and three answers side by side,
        each a full set of metrics: ``median_of_last`` (over the last 20 evaluations, fewer in a short run;
        ``evaluations`` says how many), ``last``, and ``best_on_holdout`` (at the step of best balanced accuracy on
        the hold-out; only with a hold-out and a test set). ``accuracy``, ``balanced_accuracy`` and
        ``per_class_recall`` at the top are those of ``median_of_last``, the paper's measure. {} where nothing was
        evaluated.
    """
    evaluations = [
        row for row in rows if row["event"] == "evaluate" and ("test" in row or "holdout" in row)
    ]
    if not evaluations:
        return {}
    measured_on = "test" if "test" in evaluations[-1] else "holdout"
    quoted = min(QUOTED_EVALUATIONS, max(1, round(QUOTED_SHARE * len(evaluations))))
    last = evaluations[-quoted:]
    median = _median([row[measured_on] for row in last])
    summary: Row = {
        "measured_on": measured_on,
        "measure": f"median of the last {len(last)} evaluations of the moving-average network",
        "accuracy": median["accuracy"],
        "balanced_accuracy": median["balanced_accuracy"],
        "per_class_recall": median["recall"],
        "evaluations": len(last),
        "median_of_last": median,
        "last": evaluations[-1][measured_on],
    }
    if measured_on == "test" and "holdout" in evaluations[-1]:
        best = max(evaluations, key=lambda row: row["holdout"]["balanced_accuracy"])
        summary["best_on_holdout"] = {"step": best["step"], **best[measured_on]}
    return summary
