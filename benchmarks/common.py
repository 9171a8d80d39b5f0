"""Rows of results, numbers over seeds or rounds, and where they were measured."""

from __future__ import annotations

import csv
import itertools
import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from daso.train.folder.environment import describe_environment

Key = TypeVar("Key")
Row = dict[str, str]
Seeds = dict[str, Row]
"""Rows by seed."""
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


def daso_command(*words: object) -> list[str]:
    return [sys.executable, "-m", "daso", *map(str, words)]


def environment_with(threads: int) -> dict[str, str]:
    """Return the environment of a process whose torch has so many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


def read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def grouped(
    rows: Iterable[Row], setting: Callable[[Row], Key], name: Callable[[Row], str]
) -> dict[Key, dict[str, Seeds]]:
    """Return rows by setting, by the name of what was measured in it, and by seed."""
    found: dict[Key, dict[str, Seeds]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[setting(row)][name(row)][row["seed"]] = row
    return found


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return all combinations of values of hyper-parameters."""
    products = itertools.product(*values.values())
    return [dict(zip(values, product, strict=True)) for product in products]


def best_options(rows: Iterable[Row], key: Mapping[str, str]) -> dict[str, Any]:
    """Return the hyper-parameters with the best mean over the seeds, in rows with a key."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if key.items() <= row.items():
            found[row["options"]].append(float(row["balanced_accuracy"]))
    best = max(found, key=lambda options: float(np.mean(found[options])))
    options: dict[str, Any] = json.loads(best)
    return options


def first_of_each(
    labels: npt.NDArray[np.int64], stop: int, start: int = 0
) -> npt.NDArray[np.int64]:
    """Return the rows of each class from number *start* to *stop*, in order."""
    classes = range(int(labels.max()) + 1)
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[start:stop] for k in classes]))


def print_heading(*columns: str) -> None:
    """Print the first two lines of a Markdown table."""
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


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


def gains(rows: Seeds, others: Seeds, column: str = "balanced_accuracy") -> list[float]:
    """Return the gain over another row of the same seed, for each seed that both have."""
    seeds = sorted(rows.keys() & others.keys())
    return [float(rows[seed][column]) - float(others[seed][column]) for seed in seeds]


def mean_and_error(values: Sequence[float]) -> str:
    """Return the mean gain ± its standard error; the gain alone of one value."""
    if len(values) == 1:
        return f"{values[0]:+.1f}"
    return f"{np.mean(values):+.1f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}"


def ahead(rows: Seeds, others: Seeds, column: str = "balanced_accuracy") -> str:
    """Return the mean gain over other rows with the same seeds, and how many gain."""
    gained = gains(rows, others, column)
    if not gained:
        return ""
    return f"{mean_and_deviation(gained)} ({sum(gain > 0 for gain in gained)} of {len(gained)})"
