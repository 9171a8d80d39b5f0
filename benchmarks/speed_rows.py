"""Rows of results/speed.csv: one for every ratio that benchmarks/speed.py or benchmarks/views.py measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provenance import provenance
from speed_options import CONVENTIONAL, Speed

from daso.report.results import append_row

Spread = dict[str, float]


def row(
    measured: str, spread: Spread, *, rounds: int, clock: str, threads: int, **columns: Any
) -> dict[str, Any]:
    """Return a row: what was measured, on what (see the names below), its median, lowest and highest value."""
    names = ("setting", "method", "classes", "precision", "batch_norm", "way")
    assert columns.keys() <= set(names)
    return {
        "measured": measured,
        **{name: columns.get(name, "") for name in names},
        **{name: f"{spread[name]:.4g}" for name in ("median", "low", "high")},
        "rounds": rounds,
        "clock": clock,
        **provenance(threads),
    }


def spread_of(values: list[float]) -> Spread:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _variant(label: str) -> dict[str, str]:
    """Take the name of a variant apart."""
    return dict(zip(("precision", "batch_norm", "way"), label.split(", "), strict=True))


def _measured(
    result: dict[str, Any], step: float | None
) -> Iterator[tuple[str, Spread, dict[str, Any]]]:
    for setting, cases in result.get("settings", {}).items():
        for case, found in cases.items():
            method, _, classes = case.partition(", K = ")
            for label, numbers in found["variants"].items():
                if label != CONVENTIONAL:
                    columns = {
                        "setting": setting,
                        "method": method,
                        "classes": classes,
                        **_variant(label),
                    }
                    yield "step, times conventional", numbers["times_conventional"], columns
    for classes, numbers in result.get("own_work", {}).items():
        columns = {"method": "fixmatch+daso", "classes": classes}
        yield "DASO's own work, times conventional", numbers["times_conventional"], columns
        if step is not None:
            shares = [ours / 1000 / step for ours in numbers["milliseconds"]["ours"]]
            yield "DASO's own work, share of our fastest step", spread_of(shares), columns
    for label, share in result.get("overhead", {}).get("share_of_run", {}).items():
        columns = {"method": "fixmatch+daso", **_variant(label)}
        yield "evaluation, checkpoints, logging, share of a run", spread_of([share]), columns
    for label, peaks in result.get("memory", {}).items():
        if label != "torch":
            columns = {"method": "fixmatch+daso", **_variant(label)}
            yield (
                "peak host memory of a training above torch's import, MB",
                spread_of([peaks["training"]]),
                columns,
            )


def write_rows(path: Path, speed: Speed, result: dict[str, Any], step: float | None) -> None:
    """Append a row for every ratio of some sections; *step* is the seconds of our fastest one, if there is one."""
    for measured, spread, columns in _measured(result, step):
        once = measured.startswith(("evaluation", "peak"))
        rounds = 1 if once else speed.rounds
        append_row(
            path,
            row(
                measured, spread, rounds=rounds, clock=speed.clock, threads=speed.threads, **columns
            ),
        )
