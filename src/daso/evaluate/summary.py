"""Summarize the evaluations of a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from daso.files import Row

QUOTED_EVALUATIONS = 20
"""The DASO paper reports the median over the last 20 of 500 evaluations."""
QUOTED_SHARE = 0.25
"""Most of a short run's evaluations that are quoted; earlier ones belong to a worse network."""


def _median(metrics: Sequence[Row]) -> Row:
    """Return the median of each number, of lists element by element; NaN where all are NaN."""
    result: Row = {}
    for name, first in metrics[0].items():
        values = [m[name] for m in metrics]
        if isinstance(first, dict):
            result[name] = _median(values)
        else:
            stacked = np.array(values, dtype=float)  # None, from a file, becomes NaN
            with warnings.catch_warnings():
                # A class that was never measured is NaN throughout.
                warnings.simplefilter("ignore", RuntimeWarning)
                result[name] = np.nanmedian(stacked, axis=0).tolist()
    return result


def summarize(rows: Sequence[Row]) -> Row:
    """Summarize the ``"evaluate"`` rows of a run.

    Returns:
        ``measured_on`` (``"test"``, or ``"holdout"`` without a test set) and up to three full sets
        of metrics: ``median_of_last`` (over the last 20 evaluations, fewer in a short run;
        ``evaluations`` is their number), ``last``, and, with a hold-out and a test set,
        ``best_on_holdout`` (at the step with the best balanced accuracy on the hold-out).
        ``accuracy``, ``balanced_accuracy`` and ``per_class_recall`` repeat those of
        ``median_of_last``, the paper's measure. {} if nothing was evaluated.
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
    measure = f"median of the last {quoted} evaluations" if quoted > 1 else "last evaluation"
    summary: Row = {
        "measured_on": measured_on,
        "measure": f"{measure} of the moving-average network",
        "accuracy": median["accuracy"],
        "balanced_accuracy": median["balanced_accuracy"],
        "per_class_recall": median["recall"],
        "evaluations": len(last),
        "median_of_last": median,
        "last": evaluations[-1][measured_on],
    }
    if measured_on == "test" and "holdout" in evaluations[-1]:
        # The last of equal ones, as for ``--deploy best``.
        best = max(evaluations, key=lambda row: (row["holdout"]["balanced_accuracy"], row["step"]))
        summary["best_on_holdout"] = {"step": best["step"], **best[measured_on]}
    return summary
