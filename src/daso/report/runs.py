"""Run folders as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.balance import balanced_by
from daso.errors import RunError
from daso.files import Row, read_json, read_rows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunFolder:
    """What the files of a run folder say.

    Attributes:
        path: of the folder.
        config, data, environment: as written when the run began.
        rows: of ``metrics.jsonl``.
        summary: {} while the run is not complete.
    """

    path: Path
    config: Row
    data: Row
    environment: Row
    rows: list[Row]
    summary: Row

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.config["method"])

    @property
    def balanced_by(self) -> tuple[str, ...]:
        """What has balanced the classifier in training, so that logit adjustment would do it twice; () if nothing."""
        return balanced_by(self.config, self.data)

    @property
    def class_names(self) -> list[str]:
        """The K class names."""
        return list(self.data["class_names"])

    def evaluations(self) -> list[Row]:
        """Return the ``"evaluate"`` rows in order."""
        return [row for row in self.rows if row["event"] == "evaluate"]

    def recall(self) -> Array:
        """Return the per-class recall (K,) that the summary quotes; NaN where there is none."""
        return as_array(self.summary["per_class_recall"])


def as_array(values: Any) -> Array:
    """Return numbers as float64, None as NaN."""
    return np.array(values, dtype=np.float64)


def read_run(path: Path) -> RunFolder:
    """Read a run folder; a last row that was cut off is left out.

    Raises:
        RunError: it is no run folder, or a file is damaged.
    """

    config, data = read_json(path / "config.json"), read_json(path / "data.json")
    for name, value, keys in (
        ("config.json", config, ("method", "source", "train", "split")),
        ("data.json", data, ("class_names", "labeled_counts")),
    ):
        missing = [key for key in keys if value.get(key) is None]
        if missing:
            raise RunError(f"{path / name} does not say {', '.join(missing)}")
    summary = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    environment = read_json(path / "environment.json")
    return RunFolder(path, config, data, environment, read_rows(path / "metrics.jsonl"), summary)


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours; ``?`` if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min" if hours < 2 else f"{hours:.{int(hours < 10)}f} h"
