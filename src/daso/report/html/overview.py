"""Section on the results: the main numbers, how they were measured, and warnings."""

from __future__ import annotations

from typing import Any

import numpy as np

from daso.errors import how_many
from daso.evaluate.metrics import confusion_matrix
from daso.files import Row
from daso.report.html.run import UNREADABLE, Run
from daso.report.html.template import percent
from daso.report.runs import Array, at, number, vector
from daso.report.uncertainty import interval, is_wide
from daso.report.warnings.watch import find_warnings
from daso.report.wording import POOLS, chosen_readout, duration, of_classes

MOST_NAMED = 6


def quoted_metrics(run: Run) -> tuple[Row, str]:
    """Return the metrics that the report quotes and their origin; {} if nothing was measured."""
    median = run.summary.get("median_of_last")
    if isinstance(median, dict):
        count = number(run.summary.get("evaluations")) or 1
        last = f"median of the last {count:.0f} evaluations" if count > 1 else "last evaluation"
        return median, f"the {last} of the moving-average network"
    metrics = run.latest(run.measured_on or "")
    return metrics, "the latest evaluation of the moving-average network" if metrics else ""


def confusion_counts(run: Run) -> Array | None:
    """Return the answers on the measured images, (K, K): row = true class; None if not counted.

    Without ``confusion.json``, these are the answers of ``beliefs.safetensors``.
    """
    if not run.confusion:
        return _believed_answers(run)
    rows = run.confusion.get("counts")
    if not isinstance(rows, list) or len(rows) != run.num_classes:
        return None
    table = [vector(row, run.num_classes) for row in rows]
    return None if any(row is None or np.isnan(row).any() for row in table) else np.array(table)


def _believed_answers(run: Run) -> Array | None:
    label, answer = (run.arrays.get(f"{run.measured_on}.{name}") for name in ("label", "answer"))
    if label is None or answer is None or label.shape != answer.shape or not label.size:
        return None
    known, count = label >= 0, run.num_classes
    valid = min(label.min(), answer.min()) >= -1 and max(label.max(), answer.max()) < count
    if not valid or answer[known].min() < 0:
        return None
    return confusion_matrix(label.astype(int), answer, count).astype(float)


def measured_counts(run: Run) -> Array | None:
    """Return the measured images of each class, (K,)."""
    counts = vector(run.data.get(f"{run.measured_on}_counts"), run.num_classes)
    if counts is None and run.confusion.get("measured_on", run.measured_on) == run.measured_on:
        table = confusion_counts(run)
        counts = None if table is None else table.sum(1)
    return counts


def overview(run: Run) -> Row | None:
    """Return the tiles, sentences on how they were measured, and the warnings."""
    metrics, origin = quoted_metrics(run)
    recall, counts = vector(metrics.get("recall"), run.num_classes), measured_counts(run)
    half = None if recall is None or counts is None else interval(recall, counts)
    measured = ["Nothing has been measured yet."]
    return {
        "tiles": _tiles(run, metrics, recall, half) if metrics else [],
        "measured": _measured(run, metrics, origin, counts, half) if metrics else measured,
        "warnings": _warnings(run),
        "facts": _facts(run),
    }


def _tiles(run: Run, metrics: Row, recall: Array | None, half: float | None) -> list[Row]:
    tiles = []

    def tile(name: str, value: Any, note: str) -> None:
        if (share := number(value)) is not None:
            tiles.append({"name": name, "value": percent(share), "note": note})

    def beside(name: str) -> str:
        share = number(at(metrics, "logit_adjusted", name))
        return "" if share is None or run.balanced_by else f"logit-adjusted {percent(share)}"

    of = "" if recall is None else of_classes(recall).strip(" ()")
    notes = (f"± {100 * half:.1f}" if half else "", of, beside("balanced_accuracy"))
    tile("balanced accuracy", metrics.get("balanced_accuracy"), " · ".join(filter(None, notes)))
    tile("accuracy", metrics.get("accuracy"), beside("accuracy"))
    rare, often = len(run.groups["few"]), len(run.groups["many"])
    frequent = "most frequent class" if often == 1 else f"{often} most frequent classes"
    tile(
        "recall, rarest class" if rare == 1 else f"recall, {rare} rarest classes",
        metrics.get("recall_few"),
        f"{frequent}: {percent(number(metrics.get('recall_many')))}",
    )
    if recall is not None:
        worst = int(np.nanargmin(recall))
        others = int((recall == recall[worst]).sum()) - 1
        more = f" and {others} more" if others else ""
        tile("lowest recall", float(recall[worst]), run.class_names[worst] + more)
    guesses = [at(row, "pseudo_labels") for row in run.evaluations()]
    last: Row = next((one for one in reversed(guesses) if at(one, "final")), {})
    right = number(at(last, "confident", "accuracy"))
    tile(
        "pseudo-labels used",
        last.get("share_confident"),
        "share over the threshold" if right is None else f"of these, right: {percent(right)}",
    )
    answered = number(at(run.calibration, "answered", "error"))
    same_images = at(run.calibration, "answered", "measured_on") == run.measured_on
    as_used = f"as trained; of the model in use, daso predict {percent(answered)}"
    predicted = "" if answered is None else as_used
    shown = filter(None, (predicted if same_images else "", beside("calibration_error")))
    tile("calibration error", metrics.get("calibration_error"), " · ".join(shown))
    return tiles


def _measured(
    run: Run, metrics: Row, origin: str, counts: Array | None, half: float | None
) -> list[str]:
    part = run.measured_on or "test"
    size = number(run.data.get(part))
    images = f"{POOLS[part]} images" if size is None else how_many(size, f"{POOLS[part]} image")
    lines = [f"All in %, on {images}: {origin} (step {run.step:,})."]
    if part == "holdout":
        lines.append("There are no test images; the hold-out was not used for training either.")
    if counts is not None:
        least = int(counts[counts > 0].min()) if (counts > 0).any() else 0
        missing = [run.class_names[k] for k in run.order if counts[k] == 0]
        fewest = "class" if not missing else "measured class"
        text = f"The {fewest} with the fewest has {least:,} of these images."
        if half is not None:
            text += f" 95% interval of balanced accuracy: ± {100 * half:.1f} points."
        lines.append(text)
        if is_wide(half):
            lines.append(
                "These are few images: small differences between runs mean nothing. Measure on "
                "more images, or compare several seeds."
            )
        if missing:
            more = len(missing) - MOST_NAMED
            names = ", ".join(missing[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"Classes without such images, not measured: {names}.")
    readouts = (row.get("readout") for row in run.rows)
    if text := chosen_readout(next((row for row in readouts if isinstance(row, dict)), {})):
        lines.append(text)
    best = at(run.summary, "best_on_holdout")
    if (value := number(at(best, "balanced_accuracy"))) is not None:
        step = number(at(best, "step")) or 0
        lines.append(
            f"The checkpoint that was best on the hold-out (step {step:,.0f}) scores a balanced "
            f"accuracy of {percent(value)} on the test images."
        )
    if run.balanced_by:
        lines.append(
            f"No logit-adjusted numbers: {', '.join(run.balanced_by)} balanced the classifier in "
            f"training; adjusting it again would favor the rare classes."
        )
    elif number(at(metrics, "logit_adjusted", "balanced_accuracy")) is not None:
        lines.append(
            "Logit-adjusted: logits minus the logarithm of each class's share of the labeled "
            "images. Use it if the images to classify have about balanced classes."
        )
    return lines


def _warnings(run: Run) -> list[Row]:
    try:
        warnings = find_warnings(run.config, run.data, run.rows)
    except UNREADABLE:
        return []
    return [
        {"text": f"From step {row['step']:,} on: {row['message']}.", "advice": row["advice"]}
        for row in warnings
    ]


def _facts(run: Run) -> list[tuple[str, str]]:
    counts = run.labeled_counts
    facts = [("classes", f"{run.num_classes:,}" if run.num_classes else "")]
    if counts is not None:
        span = f"{counts.max():,.0f} to {counts.min():,.0f} per class"
        facts.append(("labeled", f"{counts.sum():,.0f}, from {span}"))
    for key, name in (("unlabeled", "unlabeled"), ("holdout", "hold-out"), ("test", "test")):
        size = number(run.data.get(key))
        facts.append((name, f"{size:,.0f}" if size else ""))
    facts.append(("network", str(at(run.config, "train", "network") or "")))
    if run.steps:
        of = "" if run.step == run.steps else f" of {run.steps:,}"
        facts.append(("steps", f"{run.step:,}{of}"))
    last = run.rows[-1].get("seconds") if run.rows else None
    seconds = number(run.summary.get("seconds")) or number(last)
    facts.append(("time", duration(seconds) if seconds else ""))
    hardware = run.environment.get("hardware") or run.environment.get("device") or ""
    facts.append(("on", str(hardware)))
    return [(name, value) for name, value in facts if value]
