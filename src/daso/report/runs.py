"""Run folders as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from daso.balance import balanced_by
from daso.errors import RunError
from daso.evaluate.metrics import class_groups
from daso.files import Row, printable, read_arrays, read_json, read_rows

Array = npt.NDArray[np.float64]
Value = TypeVar("Value")


def as_array(values: Any) -> Array:
    """Return numbers as float64, None as NaN."""
    return np.array(values, dtype=np.float64)


def at(value: Any, *path: str) -> Any:
    """Return the value at *path* in nested objects; None if it is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def number(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def vector(value: Any, length: int) -> Array | None:
    """Return a list of *length* numbers as float64, null as NaN; None without any number."""
    if not isinstance(value, list) or len(value) != length or not length:
        return None
    values = np.array([np.nan if (v := number(item)) is None else v for item in value])
    return None if np.isnan(values).all() else values


def mean_known(values: Array, axis: int = 0) -> Array:
    """Return the mean of the numbers that are not NaN along an axis; NaN where all are."""
    known = ~np.isnan(values)
    total: Array = np.where(known, values, 0).sum(axis)
    return np.where(known.any(axis), total / np.maximum(known.sum(axis), 1), np.nan)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run folder.

    Attributes:
        config, data, environment: as written when the run began.
        rows: of ``metrics.jsonl``.
        summary: {} until the run is complete.
    """

    path: Path
    config: Row
    data: Row
    environment: Row
    rows: list[Row]
    summary: Row

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @cached_property
    def balanced_by(self) -> tuple[str, ...]:
        """Parts that balanced the classifier in training; () if none.

        Logit adjustment would balance such a classifier twice.
        """
        return balanced_by(self.config, self.data)

    @cached_property
    def class_names(self) -> list[str]:
        return [printable(name) for name in self.data["class_names"]]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def labeled_counts(self) -> Array | None:
        """Labeled images of each class, (K,)."""
        return vector(self.data.get("labeled_counts"), self.num_classes)

    @cached_property
    def order(self) -> list[int]:
        """The class indices, most labeled images first."""
        counts = self.labeled_counts
        if counts is None:
            return list(range(self.num_classes))
        return [int(k) for k in np.argsort(-counts, kind="stable")]

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The classes in thirds by labeled images: many, medium, few."""
        counts = self.labeled_counts
        return class_groups(np.zeros(self.num_classes) if counts is None else counts)

    @property
    def measured_on(self) -> str | None:
        """``"test"``, ``"holdout"`` without test images, or None if nothing was measured."""
        if self.summary.get("measured_on") in ("test", "holdout"):
            return str(self.summary["measured_on"])
        last = self.evaluations()[-1] if self.evaluations() else {}
        return next((n for n in ("test", "holdout") if isinstance(last.get(n), dict)), None)

    def evaluations(self) -> list[Row]:
        return [row for row in self.rows if row["event"] == "evaluate"]

    def recall(self) -> Array:
        """Return the per-class recall (K,) of the summary; NaN if a class was not measured."""
        return as_array(self.summary["per_class_recall"])

    def over_time(self, *path: str, event: str = "evaluate") -> tuple[Array, Array]:
        """Return the numbers at *path* of the rows of an event: steps (T,) and values (T,)."""
        pairs = [
            (row["step"], number(at(row, *path))) for row in self.rows if row["event"] == event
        ]
        kept = [(step, value) for step, value in pairs if value is not None]
        steps, values = as_array(kept).reshape(len(kept), 2).T
        return steps, values

    def classes_over_time(self, *path: str) -> tuple[Array, Array]:
        """Return the numbers per class of the evaluations: steps (T,) and values (T, K)."""
        pairs = [
            (row["step"], vector(at(row, *path), self.num_classes)) for row in self.evaluations()
        ]
        kept = [(step, values) for step, values in pairs if values is not None]
        values = as_array([values for _, values in kept]).reshape(len(kept), self.num_classes)
        return as_array([step for step, _ in kept]), values

    def believed(self, make: Callable[[dict[str, npt.NDArray[Any]]], Value]) -> Value | None:
        """Return what *make* returns for the arrays of ``beliefs.safetensors``; None without it.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "beliefs.safetensors"
        try:
            return make(read_arrays(path, "beliefs")[0]) if path.exists() else None
        except (OSError, LookupError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error


def read_run(path: Path) -> RunFolder:
    """Read a run folder; a last row that was cut off is left out.

    Raises:
        RunError: the path is not a run folder, or a file is damaged.
    """
    config, data = read_json(path / "config.json"), read_json(path / "data.json")
    for name, value, keys in (
        ("config.json", config, ("method", "source", "train", "split")),
        ("data.json", data, ("class_names", "labeled_counts")),
    ):
        missing = [key for key in keys if value.get(key) is None]
        if missing:
            raise RunError(f"{path / name} lacks {', '.join(missing)}")
    summary = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    environment = read_json(path / "environment.json")
    return RunFolder(path, config, data, environment, read_rows(path / "metrics.jsonl"), summary)
