"""Numbers over seeds or rounds, and where they were measured: shared by the benchmarks."""

from __future__ import annotations

import csv
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daso.train.folder.environment import describe_environment

Spread = dict[str, float]
"""The median, lowest and highest value of some rounds."""


def provenance(threads: int | None = None) -> dict[str, Any]:
    """Return columns with the place of a measurement: commit, hardware, torch, load, command."""
    environment = describe_environment(torch.device("cpu"))
    return {
        "commit": environment["commit"],
        "hardware": f"{environment['hardware']}, {threads or environment['threads']} thread(s)",
        "torch": environment["torch"],
        "load": round(os.getloadavg()[0], 1),
        "command": environment["command"],
    }


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spread_of(values: Sequence[float]) -> Spread:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return the spread of the ratios of two series, round by round."""
    return spread_of([a / b for a, b in zip(numerators, denominators, strict=True)])


def show(spread: Spread) -> str:
    return f"{spread['median']:6.2f} ({spread['low']:.2f}-{spread['high']:.2f})"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return ``mean ± standard deviation``; the mean alone for one value, "" for none."""
    if not values:
        return ""
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def ahead(
    rows: Mapping[str, Mapping[str, str]],
    others: Mapping[str, Mapping[str, str]],
    column: str = "balanced_accuracy",
) -> str:
    """Return the mean gain over other rows with the same seeds, and how many gain."""
    seeds = sorted(rows.keys() & others.keys())
    gains = [float(rows[seed][column]) - float(others[seed][column]) for seed in seeds]
    if not gains:
        return ""
    return f"{mean_and_deviation(gains)} ({sum(gain > 0 for gain in gains)} of {len(gains)})"
