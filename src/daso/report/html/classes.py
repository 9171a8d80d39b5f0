"""The classes one by one: counts, recall, and what they are taken for."""

from __future__ import annotations

import math

import numpy as np

from daso.files import Row
from daso.report.html import charts, svg
from daso.report.html.overview import POOLS, confusion_counts, quoted_metrics
from daso.report.html.run import Array, Run, at, number, vector

MISTAKES = 40
FEW_CLASSES = 30
"""So many classes have a table of numbers as their confusion matrix; more have a picture."""


def classes(run: Run) -> Row | None:
    """Return the counts and recalls per class, as charts and as a table."""
    if not run.num_classes:
        return None
    order, names = run.order, [run.class_names[k] for k in run.order]
    metrics, _ = quoted_metrics(run)
    recall = vector(metrics.get("recall"), run.num_classes)
    adjusted = None
    if not run.balanced_by:
        adjusted = vector(at(metrics, "logit_adjusted", "recall"), run.num_classes)
    labeled = run.labeled_counts
    truth = vector(run.data.get("unlabeled_counts"), run.num_classes)
    pseudo, origin = pseudo_counts(run)
    places = np.arange(len(order), dtype=float)
    notes = [f"({labeled[k]:.0f})" if labeled is not None else "" for k in order]
    counted = [
        svg.Series(name, style, places, values[order])
        for name, style, values in (
            ("labelled", "labeled", labeled),
            ("pseudo-labels", "final", pseudo),
            ("unlabelled (truth)", "truth", truth),
        )
        if values is not None
    ]
    recalls = [
        svg.Series(name, style, places, values[order])
        for name, style, values in (
            ("recall", "final", recall),
            ("logit-adjusted", "adjusted", adjusted),
        )
        if values is not None
    ]
    recall_chart = None
    if recalls and (len(order) <= charts.NAMED or labeled is None):
        recall_chart = charts.class_dots(
            "Recall per class", names, notes, recalls, y_label="recall", percent=True, joined=True
        )
    elif recalls:
        assert labeled is not None
        recall_chart = charts.scatter_recall(
            "Recall per class against its frequency", names, labeled[order], recalls
        )
    return {
        "counts": charts.class_dots(
            "Images per class",
            names,
            [""] * len(names),
            counted,
            y_label="images",
            log=True,
            joined=True,
        )
        if counted
        else None,
        "counts_series": counted,
        "pseudo_origin": origin,
        "recall": recall_chart,
        "recall_series": recalls,
        "by_frequency": len(order) > charts.NAMED,
        "rows": _class_rows(run, metrics, labeled, truth, pseudo, recall, adjusted),
        "columns": {
            "truth": truth is not None,
            "pseudo": pseudo is not None,
            "recall": recall is not None,
            "adjusted": adjusted is not None,
            "quality": _quality(run)["recall"] is not None,
        },
    }


def pseudo_counts(run: Run) -> tuple[Array | None, str]:
    """Return how many unlabelled images got each class as pseudo-label, (K,), and where that is from."""
    label = run.arrays.get("pool.final")
    total = number(run.beliefs.get("unlabeled"))
    if label is not None and len(label) and total:
        counts = np.bincount(
            np.clip(label, 0, run.num_classes - 1), minlength=run.num_classes
        ).astype(float)
        scale = total / len(label)
        said = (
            f"of all unlabelled images {run.seen_at}"
            if scale <= 1
            else f"{run.seen_at}, scaled up from a sample of {len(label):,}"
        )
        return counts * scale, said
    total = number(run.data.get("unlabeled"))
    for row in reversed(run.evaluations):
        share = vector(at(row, "pseudo_labels", "final", "distribution"), run.num_classes)
        if share is not None and total:
            return share * total, f"by their shares before step {row['step']:,}"
    return None, ""


def _quality(run: Run) -> dict[str, Array | None]:
    """Return recall and precision of the final pseudo-labels at the end, where the truth is known."""
    for row in reversed(run.evaluations):
        final = at(row, "pseudo_labels", "final")
        if isinstance(final, dict):
            return {n: vector(final.get(n), run.num_classes) for n in ("recall", "precision")}
    return {"recall": None, "precision": None}


def _class_rows(
    run: Run,
    metrics: Row,
    labeled: Array | None,
    truth: Array | None,
    pseudo: Array | None,
    recall: Array | None,
    adjusted: Array | None,
) -> list[Row]:
    quality, table = _quality(run), confusion_counts(run)
    precision = vector(metrics.get("precision"), run.num_classes)
    rows = []
    for k in run.order:
        taken = ""
        if table is not None:
            wrong = table[k].copy()
            wrong[k] = 0
            if wrong.max() > 0:
                taken = f"{run.class_names[int(wrong.argmax())]} ({100 * wrong.max() / table[k].sum():.0f}%)"
        rows.append(
            {
                "name": run.class_names[k],
                "taken": taken,
                **{
                    name: None
                    if values is None or not math.isfinite(values[k])
                    else float(values[k])
                    for name, values in (
                        ("labeled", labeled),
                        ("truth", truth),
                        ("pseudo", pseudo),
                        ("recall", recall),
                        ("adjusted", adjusted),
                        ("precision", precision),
                        ("pseudo_recall", quality["recall"]),
                        ("pseudo_precision", quality["precision"]),
                    )
                },
            }
        )
    return rows


def confusion(run: Run) -> Row | None:
    """Return the confusion matrix, classes by frequency, and the most frequent mistakes."""
    table = confusion_counts(run)
    if table is None or not table.sum():
        return None
    order = run.order
    ordered = table[np.ix_(order, order)]
    names = [run.class_names[k] for k in order]
    share = ordered / np.maximum(ordered.sum(1, keepdims=True), 1)
    wrong = ordered.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES]
    mistakes = [
        {
            "true": names[i],
            "answer": names[j],
            "count": int(wrong[i, j]),
            "share": float(share[i, j]),
        }
        for i, j in (divmod(int(cell), len(order)) for cell in worst)
        if wrong[i, j] > 0
    ]
    part = POOLS.get(str(run.confusion.get("measured_on", run.measured_on)), "images")
    result: Row = {
        "names": names,
        "images": int(table.sum()),
        "part": part,
        "when": run.seen_at,
        "mistakes": mistakes,
        "small": len(order) <= FEW_CLASSES,
        "rows": [
            [(int(n), float(s)) for n, s in zip(*pair, strict=True)]
            for pair in zip(ordered, share, strict=True)
        ],
    }
    if not result["small"]:
        pixels = np.zeros((*share.shape, 4), np.uint8)
        pixels[..., :3] = (0, 114, 178)
        pixels[..., 3] = np.round(255 * np.sqrt(share))
        result["picture"] = charts.picture(pixels)
        result["rows"] = []
        result["island"] = {
            "names": names,
            "cells": [[[int(j), int(row[j])] for j in np.flatnonzero(row)] for row in ordered],
        }
    return result
