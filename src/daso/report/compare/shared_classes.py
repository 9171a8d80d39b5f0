"""What a run says of the classes that it shares with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daso.evaluate.metrics import recall_means
from daso.evaluate.summary import summarize
from daso.files import Row
from daso.report.runs import Array, RunFolder, as_array, at

BY_CLASS = ("labeled_counts", "unlabeled_counts", "holdout_counts", "test_counts")
FEWEST_SHARED = 2
"""Recall of a single class says nothing: it is 1 if every answer is that class."""


@dataclass(frozen=True)
class LimitedRun(RunFolder):
    """What a run says of some of its classes.

    Attributes:
        whole: the run as it was read.
    """

    whole: RunFolder


def whole_data(run: RunFolder) -> Row:
    """Return ``data.json`` of a run, with all its classes."""
    return run.whole.data if isinstance(run, LimitedRun) else run.data


def shared_names(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """Return the class names that are in both, in the order of the first."""
    return [name for name in first if name in second]


def same_images(first: RunFolder, second: RunFolder) -> bool:
    """Whether two runs are measured on the same images, at least those of the classes of both."""
    pool = str(first.measured_on)
    if pool != second.measured_on:
        return False
    one, other = (_images_by_class(run, pool) for run in (first, second))
    shared = shared_names([*one], [*other])
    images = [one[name] for name in shared if one[name] is not None]
    if len(images) >= FEWEST_SHARED and all(one[name] == other[name] for name in shared):
        return True
    whole = [at(run.data, "images_fingerprints", pool) for run in (first, second)]
    return whole[0] is not None and whole[0] == whole[1]


def _images_by_class(run: RunFolder, pool: str) -> Row:
    values = at(run.data, "class_fingerprints", pool)  # older runs have none
    names = run.data["class_names"] if isinstance(values, list) else []
    return dict(zip(names, values or (), strict=False))


def limit_run(run: RunFolder, names: Sequence[Any]) -> LimitedRun:
    """Return what a run says of some of its classes, named as in ``data.json``.

    Recalls stay: the share of a class's images that got its name, of all that the run could answer.
    Means of them, and the accuracy, are over the images of these classes. What depends on the
    others is left out: precision, loss, calibration, and what pseudo-labels are.
    """
    places = [run.data["class_names"].index(name) for name in names]
    data = run.data | {"class_names": list(names)}
    data |= {key: [run.data[key][k] for k in places] for key in BY_CLASS if run.data.get(key)}
    rows = [
        _limited(row, places, data) if row.get("event") == "evaluate" else row for row in run.rows
    ]
    stage = max((row.get("stage", 0) for row in rows), default=0)
    summary = summarize([row for row in rows if row.get("stage", 0) == stage])
    return LimitedRun(run.path, run.config, data, run.environment, rows, run.summary | summary, run)


def _limited(row: Row, places: Sequence[int], data: Row) -> Row:
    kept: Row = {key: row[key] for key in ("event", "step", "stage") if key in row}
    share = at(row, "pseudo_labels", "share_confident")
    kept |= {} if share is None else {"pseudo_labels": {"share_confident": share}}
    for part in ("test", "holdout"):
        if isinstance(metrics := row.get(part), dict):
            images = as_array(data[f"{part}_counts"])
            labeled = np.array(data["labeled_counts"])
            kept[part] = _limited_metrics(metrics, places, images, labeled)
            if adjusted := metrics.get("logit_adjusted"):
                kept[part]["logit_adjusted"] = _limited_metrics(adjusted, places, images, labeled)
    return kept


def _limited_metrics(metrics: Row, places: Sequence[int], images: Array, labeled: Array) -> Row:
    recall = as_array(metrics["recall"])[list(places)]
    hits = np.nansum(recall * images)
    accuracy = float(hits / images.sum()) if images.sum() else float("nan")
    return {"accuracy": accuracy, **recall_means(recall, labeled), "recall": recall.tolist()}
