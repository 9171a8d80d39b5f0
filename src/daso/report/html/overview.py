"""The numbers that matter, and how they were measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from daso.files import Row
from daso.report.html.run import UNREADABLE, Array, Run, at, number, section, vector
from daso.report.html.template import percent
from daso.report.runs import duration
from daso.report.uncertainty import interval
from daso.report.warnings.watch import find_warnings

POOLS = {"test": "test images", "holdout": "hold-out images"}


def quoted_metrics(run: Run) -> tuple[Row, str]:
    """Return the metrics that the report quotes and how they came about; {} where nothing was measured."""
    median = run.summary.get("median_of_last")
    if isinstance(median, dict):
        count = number(run.summary.get("evaluations")) or 1
        return median, (
            f"the median of the last {count:.0f} evaluations of the moving-average network"
            if count > 1
            else "the last evaluation of the moving-average network"
        )
    part = run.measured_on
    for row in reversed(run.evaluations):
        if part and isinstance(row.get(part), dict):
            return row[
                part
            ], f"the evaluation at step {row['step']:,} of the moving-average network, the latest"
    return {}, ""


def confusion_counts(run: Run) -> Array | None:
    """Return the answers on the measured images, (K, K): row = true class; None where they were not counted.

    While a run has no ``confusion.json`` yet, those that it gave when it last wrote what it believes.
    """
    if not run.confusion:
        return _answers_seen(run)
    rows = run.confusion.get("counts")
    if not isinstance(rows, list) or len(rows) != run.num_classes:
        return None
    table = [vector(row, run.num_classes) for row in rows]
    return None if any(row is None or np.isnan(row).any() for row in table) else np.array(table)


def _answers_seen(run: Run) -> Array | None:
    label, answer = (run.arrays.get(f"{run.measured_on}.{name}") for name in ("label", "answer"))
    count = run.num_classes
    if label is None or answer is None or label.shape != answer.shape or not label.size:
        return None
    known = label >= 0
    if (
        min(label.min(), answer.min()) < -1
        or max(label.max(), answer.max()) >= count
        or answer[known].min() < 0
    ):
        return None
    pairs = label[known].astype(int) * count + answer[known]
    return np.bincount(pairs, minlength=count**2).reshape(count, count).astype(float)


def measured_counts(run: Run) -> Array | None:
    """Return how many images of each class were measured on, (K,)."""
    counts = vector(run.data.get(f"{run.measured_on}_counts"), run.num_classes)
    if counts is None and run.confusion.get("measured_on", run.measured_on) == run.measured_on:
        table = confusion_counts(run)
        counts = None if table is None else table.sum(1)
    return counts


def overview(run: Run) -> Row | None:
    """Return the tiles, the sentences on how they were measured, and the warnings."""
    metrics, how = quoted_metrics(run)
    tiles = _tiles(run, metrics) if metrics else []
    return {
        "tiles": tiles,
        "measured": _measured(run, metrics, how) if metrics else ["Nothing has been measured yet."],
        "warnings": _warnings(run),
        "facts": _facts(run),
    }


def _tiles(run: Run, metrics: Row) -> list[Row]:
    recall = vector(metrics.get("recall"), run.num_classes)
    adjusted = {} if run.balanced_by else section(metrics, "logit_adjusted")
    tiles = []

    def tile(name: str, value: Any, note: str) -> None:
        if (found := number(value)) is not None:
            tiles.append({"name": name, "value": percent(found), "note": note})

    def beside(name: str) -> str:
        found = number(adjusted.get(name))
        return "" if found is None else f"logit-adjusted {percent(found)}"

    half = None
    if recall is not None and (counts := measured_counts(run)) is not None:
        half = interval(recall, counts)
    tile(
        "balanced accuracy",
        metrics.get("balanced_accuracy"),
        " · ".join(
            filter(None, (f"± {100 * half:.1f}" if half else "", beside("balanced_accuracy")))
        ),
    )
    tile("accuracy", metrics.get("accuracy"), beside("accuracy"))
    few = run.groups["few"]
    tile(
        f"recall, rarest {len(few)} classes" if len(few) != 1 else "recall, rarest class",
        metrics.get("recall_few"),
        f"most frequent: {percent(number(metrics.get('recall_many')))}",
    )
    if recall is not None and run.num_classes:
        worst = int(np.nanargmin(recall))
        others = int((recall == recall[worst]).sum()) - 1
        more = f" and {others} more" if others else ""
        tile("lowest recall", float(recall[worst]), run.class_names[worst] + more)
    last: Row = next(
        (r["pseudo_labels"] for r in reversed(run.evaluations) if at(r, "pseudo_labels", "final")),
        {},
    )
    right = number(at(last, "confident", "accuracy"))
    tile(
        "pseudo-labels that teach",
        last.get("share_confident"),
        f"of which right: {percent(right)}" if right is not None else "share over the threshold",
    )
    tile(
        "calibration error",
        metrics.get("calibration_error"),
        beside("calibration_error"),
    )
    return tiles


def _measured(run: Run, metrics: Row, how: str) -> list[str]:
    part = run.measured_on or "test"
    counts = measured_counts(run)
    size = number(run.data.get(part))
    images = f"{size:,.0f} {POOLS[part]}" if size is not None else POOLS[part]
    lines = [f"All in %, on {images}: {how}" + (f" (step {run.step:,})." if run.summary else ".")]
    if part == "holdout":
        lines.append(
            "There are no test images: these are the hold-out, which the training has not seen."
        )
    if counts is not None:
        least = int(counts[counts > 0].min()) if (counts > 0).any() else 0
        missing = [run.class_names[k] for k in run.order if counts[k] == 0]
        recall = vector(metrics.get("recall"), run.num_classes)
        half = None if recall is None else interval(recall, counts)
        text = f"The class with the fewest has {least:,} of these images"
        if half is not None:
            text += f"; balanced accuracy is known to within ± {100 * half:.1f} points (95%)"
        lines.append(text + ".")
        if least < 10 or (half or 0) > 0.05:
            lines.append(
                "That is few: differences of some points between runs say nothing. Measure on more images, or compare "
                "several seeds."
            )
        if missing:
            named = ", ".join(missing[:6]) + (
                f" and {len(missing) - 6} more" if len(missing) > 6 else ""
            )
            lines.append(f"Not measured, for want of such images: {named}.")
    best = run.summary.get("best_on_holdout")
    if isinstance(best, dict) and (value := number(best.get("balanced_accuracy"))) is not None:
        lines.append(
            f"At step {number(best.get('step')) or 0:,.0f}, the best on the hold-out, balanced accuracy on the test "
            f"images is {percent(value)}."
        )
    if run.balanced_by:
        lines.append(
            f"No logit-adjusted numbers: {', '.join(run.balanced_by)} balanced the classifier in training, and "
            f"adjusting it once more would favour the rare classes."
        )
    elif number(at(metrics, "logit_adjusted", "balanced_accuracy")) is not None:
        lines.append(
            "Logit-adjusted: the logarithm of each class's share of the labelled images is subtracted from its logit; "
            "right where the images to classify are about balanced."
        )
    return lines


def _warnings(run: Run) -> list[Row]:
    try:
        found = find_warnings(run.config, run.data, run.rows)
    except UNREADABLE:
        return []
    return [
        {"text": f"From step {row['step']:,} on: {row['message']}.", "advice": row["advice"]}
        for row in found
    ]


def _facts(run: Run) -> list[tuple[str, str]]:
    counts = run.labeled_counts
    train = section(run.config, "train")
    facts = [("classes", f"{run.num_classes:,}" if run.num_classes else "")]
    if counts is not None:
        facts.append(
            (
                "labelled",
                f"{counts.sum():,.0f}, from {counts.max():,.0f} to {counts.min():,.0f} of a class",
            )
        )
    for key, name in (("unlabeled", "unlabelled"), ("holdout", "hold-out"), ("test", "test")):
        if size := number(run.data.get(key)):
            facts.append((name, f"{size:,.0f}"))
    facts.append(("network", str(train.get("network") or "")))
    if run.steps:
        facts.append(
            ("steps", f"{run.step:,}" + ("" if run.step == run.steps else f" of {run.steps:,}"))
        )
    seconds = number(run.summary.get("seconds")) or (
        number(run.rows[-1].get("seconds")) if run.rows else None
    )
    if seconds:
        facts.append(("time", duration(seconds)))
    facts.append(
        ("on", str(run.environment.get("hardware") or run.environment.get("device") or ""))
    )
    return [(name, value) for name, value in facts if value]
