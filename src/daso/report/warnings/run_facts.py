"""The settings of a watched run and the window of evaluations that warnings judge."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daso.balance import balanced_by
from daso.files import Row
from daso.report.runs import Array

WINDOW = (0.2, 5_000)
"""Shortest time over which a warning is judged: a share of the steps, or steps if that is fewer."""
WINDOW_EVALUATIONS = 3
"""Fewest evaluations in that time."""
SETTLING = (0.2, 10_000)
"""Time at the start that is not judged: a share of the steps, or steps if that is fewer."""
SETTLING_STEPS = 100
"""Fewest steps at the start that are not judged, however short the training is."""


@dataclass(frozen=True)
class WatchedRun:
    """The settings of a run that warnings need.

    Attributes:
        labeled: share of each class among the labeled images, (K,).
        images_per_step: unlabeled images per step.
        unlabeled: number of unlabeled images.
        options: hyper-parameters of the method.
        slots: arguments of the method that take other parts; () if the run does not record them.
        balanced_by: parts that balance the classifier in training.
        drawn: whether the unlabeled images were drawn with a chosen class distribution; otherwise
            their distribution is unknown.
        fold: whether the run is part of a cross-validation.
        measured: images of each class to measure on, (K,); None if the run does not record them.
    """

    class_names: tuple[str, ...]
    labeled: Array
    steps: int
    images_per_step: int
    unlabeled: int
    options: Mapping[str, Any]
    slots: tuple[str, ...]
    balanced_by: tuple[str, ...]
    drawn: bool
    fold: bool
    measured_on: str
    measured: Array | None

    def name(self, classes: Sequence[int], most: int = 6) -> str:
        """Return the names of classes; of more than *most*, the first and a count."""
        names = ", ".join(self.class_names[k] for k in classes[:most])
        return names + (f" and {len(classes) - most} more" if len(classes) > most else "")


def watched_run(config: Row, data: Row) -> WatchedRun:
    """Return the settings of a run from its ``config.json`` and ``data.json``."""
    train, labeled = config["train"], np.array(data["labeled_counts"], dtype=np.float64)
    split = config.get("split", {})
    measured_on = "test" if data.get("test") else "holdout"
    counts = data.get(f"{measured_on}_counts")
    return WatchedRun(
        tuple(data["class_names"]),
        labeled / labeled.sum(),
        train["steps"],
        train["batch"] * (train.get("unlabeled_ratio") or 1),
        data.get("unlabeled", 0),
        config.get("method_options", {}),
        tuple(data.get("method", {}).get("slots", ())),
        balanced_by(config, data),
        split.get("unlabeled_head") is not None,
        split.get("fold") is not None,
        measured_on,
        None if counts is None else np.array(counts, dtype=np.float64),
    )


@dataclass(frozen=True)
class Window:
    """The latest evaluations of a stage, over the shortest time that can be judged.

    Attributes:
        rows: the ``pseudo_labels`` of each, not empty.
        steps: training steps that each covers.
    """

    rows: tuple[Row, ...]
    steps: Array

    def mean(self, *path: str) -> Array:
        """Return the mean over the steps of the numbers at *path*."""
        values = [functools.reduce(operator.getitem, path, row) for row in self.rows]
        return np.average(np.array(values, dtype=np.float64), axis=0, weights=self.steps)


def latest(
    run: WatchedRun, evaluations: Sequence[Row], settling: tuple[float, int] = SETTLING
) -> Window | None:
    """Return the latest evaluations of the last stage; None if it is too early to judge."""

    def steps_of(time: tuple[float, int]) -> float:
        return min(time[0] * run.steps, time[1])

    stage = evaluations[-1].get("stage", 0)
    rows = [row for row in evaluations if row.get("stage", 0) == stage]
    begin = max((row["step"] for row in evaluations if row.get("stage", 0) < stage), default=0)
    starts = [begin, *(row["step"] for row in rows[:-1])]
    wait = max(steps_of(settling), run.options.get("warmup_steps") or 0, SETTLING_STEPS)
    candidates = reversed(range(len(rows) - WINDOW_EVALUATIONS + 1))
    end = rows[-1]["step"]
    first = next((i for i in candidates if end - starts[i] >= steps_of(WINDOW)), None)
    if first is None or starts[first] - begin < wait:
        return None
    rows, starts = rows[first:], starts[first:]
    if not all("pseudo_labels" in row for row in rows):
        return None
    steps = [row["step"] - start for row, start in zip(rows, starts, strict=True)]
    return Window(tuple(row["pseudo_labels"] for row in rows), np.array(steps, dtype=np.float64))
