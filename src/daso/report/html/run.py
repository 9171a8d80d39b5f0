"""Read as much of a run folder as possible: damage is noted, not raised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from daso.errors import RunError, typed
from daso.files import Row, printable, read_arrays, unseal
from daso.report.runs import RunFolder, at, number

UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Raised by valid JSON with unexpected contents."""


@dataclass(frozen=True)
class Run(RunFolder):
    """The readable files of a run folder; objects are {} if missing or damaged.

    Attributes:
        arrays, beliefs: of ``beliefs.safetensors``, and the object in its header.
        problems: sentences about what is missing or damaged.
    """

    confusion: Row
    calibration: Row
    arrays: Mapping[str, npt.NDArray[Any]]
    beliefs: Row
    problems: list[str] = field(default_factory=list)

    @cached_property
    def class_names(self) -> list[str]:
        """The K class names; numbers if no file has them; [] if not even K is known."""
        for file in (self.data, self.confusion):
            names = file.get("class_names")
            if isinstance(names, list) and names:
                return [printable(str(name)) for name in names]
        for row in reversed(self.evaluations()):
            for part in ("test", "holdout"):
                recall = at(row, part, "recall")
                if isinstance(recall, list):
                    return [f"class {k}" for k in range(len(recall))]
        return []

    def latest(self, *path: str) -> Row:
        """Return the newest object at *path* of the evaluations; {} if there is none."""
        found = (at(row, *path) for row in reversed(self.evaluations()))
        return next((one for one in found if isinstance(one, dict)), {})

    @property
    def believed_when(self) -> str:
        step = number(self.beliefs.get("step"))
        ended = bool(self.summary) and step in (None, self.step)
        return "at the end" if ended or step is None else f"at step {step:,.0f}"

    @property
    def steps(self) -> int | None:
        value = number(at(self.config, "train", "steps"))
        return None if value is None else int(value)

    @property
    def step(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0


def load_run(path: Path) -> Run:
    """Read a run folder, complete or not, damaged or not.

    Raises:
        RunError: the folder has none of a run's files.
    """
    names = ("config", "data", "environment", "metrics", "summary", "confusion", "calibration")
    files = {name: path / f"{name}.{'jsonl' if name == 'metrics' else 'json'}" for name in names}
    if not any(file.exists() for file in files.values()):
        listed = ", ".join(file.name for file in files.values())
        raise RunError(f"{path} is not a run folder: it has none of {listed}")
    problems: list[str] = []
    read: dict[str, Row] = {}
    for name in ("config", "data", "environment"):
        read[name] = _object(problems, files[name], "what depends on it is left out")
    rows = _rows(problems, files["metrics"])
    for name in ("summary", "confusion", "calibration"):
        missing = not files[name].exists()
        read[name] = {} if missing else _object(problems, files[name], "it is left out")
    run = Run(path, rows=rows, **read, arrays={}, beliefs={}, problems=problems)
    complete = files["summary"].exists()
    if not complete:
        of = f" of {run.steps:,}" if run.steps else ""
        problems.append(
            f"The training is not complete (no summary.json): results up to step {run.step:,}{of}."
        )
    if not run.class_names:
        problems.append("No file names the classes: nothing is shown class by class.")
    arrays, beliefs = _beliefs(problems, path, complete)
    return Run(path, rows=rows, **read, arrays=arrays, beliefs=beliefs, problems=problems)


def _object(problems: list[str], path: Path, consequence: str) -> Row:
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return unseal(value)
        reason = f"it holds a {type(value).__name__}, not an object"
    except FileNotFoundError:
        reason = "it is missing"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    problems.append(f"{path.name} cannot be read ({reason}): {consequence}.")
    return {}


def _rows(problems: list[str], path: Path) -> list[Row]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        problems.append(
            f"metrics.jsonl cannot be read ({error.strerror or error}): no curves over time."
        )
        return []
    rows: list[Row] = []
    damaged = []
    for place, line in enumerate(lines, 1):
        try:
            row = unseal(json.loads(line))
            step = number(row["step"])
            if not isinstance(row["event"], str) or step is None or step < 0:
                raise ValueError
            rows.append(row | {"step": int(step)})
        except (*UNREADABLE, RecursionError):
            damaged.append(place)
    if damaged == [len(lines)]:
        problems.append("The last line of metrics.jsonl was cut off and is left out.")
    elif damaged:
        places = ", ".join(map(str, damaged[:5])) + (" ..." if len(damaged) > 5 else "")
        problems.append(
            f"{len(damaged)} of {len(lines)} lines of metrics.jsonl are damaged (line {places}) "
            f"and left out."
        )
    if not rows:
        problems.append("metrics.jsonl has no row yet: no curves over time.")
    return sorted(rows, key=lambda row: int(row["step"]))


def _beliefs(
    problems: list[str], folder: Path, complete: bool
) -> tuple[dict[str, npt.NDArray[Any]], Row]:
    path = folder / "beliefs.safetensors"
    lost = "no map, no gallery, no reliability diagram and no list of what to label next"
    refresh = f"'daso report {typed(folder)} --refresh'"
    if not path.exists():
        often = "" if complete else " The training writes it too, in at most 2% of its time."
        problems.append(
            f"There is no beliefs.safetensors: {lost}. {refresh} makes it from the last "
            f"checkpoint, if the data has not moved.{often}"
        )
        return {}, {}
    try:
        arrays, beliefs = read_arrays(path, "beliefs")
        if beliefs.get("version") != 1:
            raise ValueError("this version of daso does not read its header")
    except (OSError, ValueError) as error:
        problems.append(
            f"beliefs.safetensors cannot be read ({error}): {lost}. {refresh} makes it again."
        )
        return {}, {}
    step = number(beliefs.get("step"))
    if not complete and step is not None:
        problems.append(
            f"Predictions for single images are those of step {step:,.0f}; {refresh} updates "
            f"them to the last checkpoint."
        )
    if "pool.index" not in arrays:
        problems.append("The run has no unlabeled images: no map and no gallery.")
    return arrays, beliefs
