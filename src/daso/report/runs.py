"""Run folders as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.errors import RunError

Row = dict[str, Any]
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

    def read(name: str) -> Row:
        try:
            value = json.loads((path / name).read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{path} is no run folder: it has no {name}") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{path / name} cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise RunError(f"{path / name} holds no JSON object")
        return value

    rows: list[Row] = []
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise RunError(f"{metrics}, line {number}: not JSON ({error})") from error
    summary = read("summary.json") if (path / "summary.json").exists() else {}
    return RunFolder(path, read("config.json"), read("data.json"), read("environment.json"), rows, summary)
