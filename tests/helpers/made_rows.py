"""Rows of trainings that nobody trained, for tests of warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from daso.balance import balancing_parts
from daso.report.warnings.run_facts import RunFacts
from daso.report.warnings.watch import Watch

Row = dict[str, Any]

LABELED = np.array([0.4, 0.3, 0.2, 0.1])

STEPS, PERIOD = 1000, 50


def facts(
    labeled: np.ndarray = LABELED,
    options: Row | None = None,
    steps: int = STEPS,
    measured: Row | None = None,
    method: str = "fixmatch+daso",
    **more: Any,
) -> RunFacts:
    names = tuple(f"class {k}" for k in range(len(labeled)))
    counts = None if measured is None else np.array(next(iter(measured.values())), dtype=float)
    where = "test" if measured is None else next(iter(measured))
    known = RunFacts(
        names,
        labeled,
        steps,
        images_per_step=64,
        unlabeled=1000,
        method=method,
        options={"threshold": 0.95} | (options or {}),
        balanced_by=balancing_parts(method),
        drawn=True,
        fold=False,
        measured_on=where,
        measured=counts,
    )
    return replace(known, **more)


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


def warnings_of(known: RunFacts, make: Callable[[int], Row], steps: int = STEPS) -> list[Row]:
    watch = Watch(known)
    found = []
    for step in range(PERIOD, steps + 1, PERIOD):
        found += [{"step": step, **warning} for warning in watch.see(make(step))]
    return found


def kinds(warnings: list[Row]) -> list[str]:
    return [warning["kind"] for warning in warnings]


REVERSED = LABELED[::-1].copy()
