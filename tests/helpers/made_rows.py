"""Made rows of trainings, for tests of warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from daso.compose import Recipe
from daso.report.warnings.run_facts import WatchedRun
from daso.report.warnings.watch import Watch

Row = dict[str, Any]

LABELED = np.array([0.4, 0.3, 0.2, 0.1])

STEPS, PERIOD = 1000, 50


def watched(
    labeled: np.ndarray = LABELED,
    options: Row | None = None,
    steps: int = STEPS,
    measured: Row | None = None,
    method: str = "fixmatch+daso",
    **more: Any,
) -> WatchedRun:
    names = tuple(f"class {k}" for k in range(len(labeled)))
    counts = None if measured is None else np.array(next(iter(measured.values())), dtype=float)
    where = "test" if measured is None else next(iter(measured))
    recipe = Recipe.parse(method)
    run = WatchedRun(
        names,
        labeled,
        steps,
        images_per_step=64,
        unlabeled=1000,
        options={"threshold": 0.95} | (options or {}),
        slots=tuple(recipe.slots()),
        balanced_by=tuple(recipe.balanced_by()),
        drawn=True,
        fold=False,
        measured_on=where,
        measured=counts,
    )
    return replace(run, **more)


def evaluation(
    step: int,
    final: np.ndarray | list[float] = LABELED,
    confident: np.ndarray | list[float] | None = None,
    share: float = 0.5,
    **more: Any,
) -> Row:
    parts = {"final": final, "confident": final if confident is None else confident}
    pseudo_labels = {name: {"distribution": list(map(float, part))} for name, part in parts.items()}
    return {
        "event": "evaluate",
        "step": step,
        "pseudo_labels": {"share_confident": share, **pseudo_labels},
    } | more


GOOD = {"balanced_accuracy": 0.7, "recall_few": 0.4, "recall": [0.7] * 4}


def warnings_of(run: WatchedRun, make: Callable[[int], Row], steps: int = STEPS) -> list[Row]:
    watch = Watch(run)
    warnings = []
    for step in range(PERIOD, steps + 1, PERIOD):
        warnings += [{"step": step, **warning} for warning in watch.see(make(step))]
    return warnings


def kinds(warnings: list[Row]) -> list[str]:
    return [warning["kind"] for warning in warnings]


REVERSED = LABELED[::-1].copy()
