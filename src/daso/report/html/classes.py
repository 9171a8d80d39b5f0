"""Sections on the classes: counts and recall, and the confusion matrix."""

from __future__ import annotations

import math

import numpy as np

from daso.files import Row
from daso.report import charts
from daso.report.html import svg
from daso.report.html.diagrams import picture
from daso.report.html.overview import confusion_counts, quoted_metrics
from daso.report.html.run import Run
from daso.report.runs import Array, at, number, vector
from daso.report.wording import POOLS

MOST_MISTAKES = 40
FEW_CLASSES = 30
"""Up to this many classes have a table as their confusion matrix; more have a picture."""


def classes(run: Run) -> Row | None:
    """Return counts and recall per class, as charts and as a table."""
    if not run.num_classes:
        return None
    metrics, origin_of_recall = quoted_metrics(run)
    adjusted = None if run.balanced_by else at(metrics, "logit_adjusted", "recall")
    pseudo, origin = pseudo_counts(run)
    final = run.latest("pseudo_labels", "final")
    numbers = {
        "labeled": run.labeled_counts,
        "truth": vector(run.data.get("unlabeled_counts"), run.num_classes),
        "pseudo": pseudo,
        "recall": vector(metrics.get("recall"), run.num_classes),
        "adjusted": vector(adjusted, run.num_classes),
        "precision": vector(metrics.get("precision"), run.num_classes),
        "pseudo_recall": vector(final.get("recall"), run.num_classes),
        "pseudo_precision": vector(final.get("precision"), run.num_classes),
    }
    note = "Logarithmic" + (f"; pseudo-labels {origin}." if origin else ".")
    rows = _class_rows(run, numbers)
    drawn = (
        charts.class_counts(run, pseudo, note),
        charts.recall_of(run, numbers["recall"], numbers["adjusted"]),
    )
    return {
        "charts": [svg.figure(chart) for chart in drawn if chart is not None],
        "rows": rows,
        "columns": {name for name, values in numbers.items() if values is not None},
        "note": f"Recall and precision: {origin_of_recall}. Mistakes: {run.believed_when}."
        if origin_of_recall and any(row["mistaken"] for row in rows)
        else "",
        "when": run.believed_when,
    }


def pseudo_counts(run: Run) -> tuple[Array | None, str]:
    """Return the unlabeled images with each pseudo-label, (K,), and how they were counted."""
    label = run.arrays.get("pool.final")
    total = number(run.beliefs.get("unlabeled"))
    if label is not None and len(label) and total:
        label = np.clip(label, 0, run.num_classes - 1)
        counts = np.bincount(label, minlength=run.num_classes) * total / len(label)
        if total <= len(label):
            return counts, f"of all unlabeled images {run.believed_when}"
        return counts, f"{run.believed_when}, scaled up from a sample of {len(label):,}"
    steps, shares = run.classes_over_time("pseudo_labels", "final", "distribution")
    total = number(run.data.get("unlabeled"))
    if len(steps) and total:
        return shares[-1] * total, f"by their shares before step {steps[-1]:,.0f}"
    return None, ""


def _class_rows(run: Run, numbers: dict[str, Array | None]) -> list[Row]:
    table = confusion_counts(run)
    rows = []
    for k in run.order:
        mistaken = ""
        if table is not None:
            wrong = table[k].copy()
            wrong[k] = 0
            if wrong.max() > 0:
                share = 100 * wrong.max() / table[k].sum()
                mistaken = f"{run.class_names[int(wrong.argmax())]} ({share:.0f}%)"
        values = {
            name: None if of is None or not math.isfinite(of[k]) else float(of[k])
            for name, of in numbers.items()
        }
        rows.append({"name": run.class_names[k], "mistaken": mistaken, **values})
    return rows


def confusion(run: Run) -> Row | None:
    """Return the confusion matrix, classes by frequency, and the most frequent mistakes."""
    table = confusion_counts(run)
    if table is None or not table.sum():
        return None
    ordered = table[np.ix_(run.order, run.order)]
    names = [run.class_names[k] for k in run.order]
    share = ordered / np.maximum(ordered.sum(1, keepdims=True), 1)
    wrong = ordered.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:MOST_MISTAKES]
    mistakes = [
        {"true": names[i], "answer": names[j], "count": int(wrong[i, j]), "share": share[i, j]}
        for i, j in (divmod(int(cell), len(names)) for cell in worst)
        if wrong[i, j] > 0
    ]
    part = str(run.confusion.get("measured_on", run.measured_on))
    content: Row = {
        "names": names,
        "images": int(table.sum()),
        "part": POOLS.get(part, "measured"),
        "when": run.believed_when,
        "mistakes": mistakes,
    }
    if len(names) <= FEW_CLASSES:
        rows = zip(ordered.tolist(), share.tolist(), strict=True)
        return content | {"rows": [list(zip(*row, strict=True)) for row in rows]}
    pixels = np.zeros((*share.shape, 4), np.uint8)
    pixels[..., :3] = (0, 114, 178)
    pixels[..., 3] = np.round(255 * np.sqrt(share))
    cells = [[[int(j), int(row[j])] for j in np.flatnonzero(row)] for row in ordered]
    return content | {"picture": picture(pixels), "island": {"names": names, "cells": cells}}
