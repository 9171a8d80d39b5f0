"""What warnings about a training are judged by: what its run was told, and its latest evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.balance import balancing_parts
from daso.files import Row

Array = npt.NDArray[np.float64]

LONG = (0.2, 5_000)
"""What lasts for this share of the steps, or so many if that is fewer, and for three evaluations, lasts long."""
SETTLED = (0.2, 10_000)
"""Before this share of the steps, or so many if that is fewer, and before a warm-up ends, nothing is judged."""
EARLY = 100
"""Nor before so many steps, however short the training is."""


@dataclass(frozen=True)
class RunFacts:
    """What a run is told, as far as warnings need it.

    Attributes:
        class_names: K names.
        labeled: share of each class among the labelled images, (K,).
        steps: of the whole run.
        images_per_step: unlabelled ones.
        unlabeled: images without a label.
        method: its name.
        options: its hyper-parameters.
        balanced_by: what balances the classifier in training, see ``balancing_parts``.
        drawn: whether the unlabelled images were drawn from a larger set in a distribution that was asked for; else
            nobody knows how they are distributed.
        fold: whether the run is one of a cross-validation.
        measured_on: ``"test"`` or ``"holdout"``.
        measured: images of each class to measure on, (K,); None where the run folder does not say.
    """

    class_names: tuple[str, ...]
    labeled: Array
    steps: int
    images_per_step: int
    unlabeled: int
    method: str
    options: Mapping[str, Any]
    balanced_by: tuple[str, ...]
    drawn: bool
    fold: bool
    measured_on: str
    measured: Array | None

    def name(self, classes: Sequence[int], most: int = 6) -> str:
        """Return the names of classes, of many only the first."""
        names = [self.class_names[k] for k in classes[:most]]
        return ", ".join(names) + (
            f" and {len(classes) - most} more" if len(classes) > most else ""
        )


def watch_facts(config: Row, data: Row) -> RunFacts:
    """Return the facts of a run, from its ``config.json`` and ``data.json``."""
    train, labeled = config["train"], np.array(data["labeled_counts"], dtype=np.float64)
    split = config.get("split", {})
    measured_on = "test" if data.get("test") else "holdout"
    counts = data.get(f"{measured_on}_counts")
    return RunFacts(
        tuple(data["class_names"]),
        labeled / labeled.sum(),
        train["steps"],
        train["batch"] * (train.get("unlabeled_ratio") or 1),
        data.get("unlabeled", 0),
        config.get("method", ""),
        config.get("method_options", {}),
        balancing_parts(config.get("method", ""), train.get("labeled_sampling", "uniform")),
        split.get("unlabeled_head") is not None,
        split.get("fold") is not None,
        measured_on,
        None if counts is None else np.array(counts, dtype=np.float64),
    )


@dataclass(frozen=True)
class Window:
    """The latest evaluations of a stage that together last long.

    Attributes:
        rows: the ``pseudo_labels`` of each, not empty.
        steps: training steps that each covers.
    """

    rows: tuple[Row, ...]
    steps: Array

    def mean(self, *path: str) -> Array:
        """Return the mean over the steps of the numbers at *path*."""
        values = [_at(row, path) for row in self.rows]
        return np.average(np.array(values, dtype=np.float64), axis=0, weights=self.steps)


def _at(row: Row, path: Sequence[str]) -> Any:
    value: Any = row
    for name in path:
        value = value[name]
    return value


def _steps(facts: RunFacts, share: tuple[float, int]) -> float:
    return min(share[0] * facts.steps, share[1])


def latest(
    facts: RunFacts, evaluations: Sequence[Row], settled: tuple[float, int] = SETTLED
) -> Window | None:
    """Return the latest evaluations of the last stage that last long, or None as long as it is too early."""
    stage = evaluations[-1].get("stage", 0)
    own = [row for row in evaluations if row.get("stage", 0) == stage]
    begin = max((row["step"] for row in evaluations if row.get("stage", 0) < stage), default=0)
    starts = [begin, *(row["step"] for row in own[:-1])]
    wait = max(_steps(facts, settled), facts.options.get("warmup_steps") or 0, EARLY)
    first = next(
        (
            i
            for i in reversed(range(len(own) - 2))
            if own[-1]["step"] - starts[i] >= _steps(facts, LONG)
        ),
        None,
    )
    if (
        first is None
        or starts[first] - begin < wait
        or not all("pseudo_labels" in row for row in own[first:])
    ):
        return None
    steps = np.array(
        [row["step"] - start for row, start in zip(own[first:], starts[first:], strict=True)]
    )
    return Window(tuple(row["pseudo_labels"] for row in own[first:]), steps.astype(np.float64))
