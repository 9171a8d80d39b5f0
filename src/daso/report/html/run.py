"""A run folder as far as it can be read: what is damaged or not there yet is noted, not raised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors import SafetensorError

from daso.balance import balanced_by
from daso.errors import RunError
from daso.files import Row

Array = npt.NDArray[np.float64]

UNREADABLE = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
)
"""What goes wrong where a file is JSON, but does not say what it should."""


@dataclass
class Run:
    """What the files of a run folder say.

    Attributes:
        path: of the folder.
        config, data, environment, summary, confusion, calibration: the JSON objects, {} where there is none.
        rows: of ``metrics.jsonl``, in order, damaged lines left out.
        arrays: of ``beliefs.safetensors``.
        beliefs: the object of its header.
        problems: sentences about what is missing or damaged.
    """

    path: Path
    config: Row = field(default_factory=dict)
    data: Row = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    confusion: Row = field(default_factory=dict)
    calibration: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    beliefs: Row = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def class_names(self) -> list[str]:
        """The K class names; numbers where no file has them; [] where not even K is known."""
        for place in (self.data, self.confusion):
            names = place.get("class_names")
            if isinstance(names, list) and names:
                return [str(name) for name in names]
        for row in reversed(self.evaluations):
            for part in ("test", "holdout"):
                recall = at(row, part, "recall")
                if isinstance(recall, list):
                    return [f"class {k}" for k in range(len(recall))]
        return []

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @cached_property
    def labeled_counts(self) -> Array | None:
        """Labelled images of each class, (K,)."""
        return vector(self.data.get("labeled_counts"), self.num_classes)

    @cached_property
    def order(self) -> list[int]:
        """The classes, those with most labelled images first."""
        counts = self.labeled_counts
        if counts is None:
            return list(range(self.num_classes))
        return [int(k) for k in np.argsort(-counts, kind="stable")]

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """The classes in thirds by labelled images, as the metrics group them: many, medium, few."""
        parts = np.array_split(np.array(self.order, dtype=int), 3)
        return {
            n: [int(k) for k in p] for n, p in zip(("many", "medium", "few"), parts, strict=True)
        }

    @cached_property
    def evaluations(self) -> list[Row]:
        """The ``"evaluate"`` rows."""
        return [row for row in self.rows if row["event"] == "evaluate"]

    @property
    def measured_on(self) -> str | None:
        """``"test"``, or ``"holdout"`` where there are no test images; None where nothing was measured."""
        named = self.summary.get("measured_on")
        if named in ("test", "holdout"):
            return str(named)
        last = self.evaluations[-1] if self.evaluations else {}
        return next(
            (name for name in ("test", "holdout") if isinstance(last.get(name), dict)), None
        )

    @property
    def balanced_by(self) -> tuple[str, ...]:
        """What has balanced the classifier in training, so that logit adjustment would do it twice; () if nothing."""
        return balanced_by(self.config, self.data)

    @property
    def seen_at(self) -> str:
        """When the images were looked at that ``beliefs.safetensors`` is about."""
        step = number(self.beliefs.get("step"))
        ended = bool(self.summary) and step in (None, self.step)
        return "at the end" if ended or step is None else f"at step {step:,.0f}"

    @property
    def steps(self) -> int | None:
        """Steps of the whole run."""
        value = number(at(self.config, "train", "steps"))
        return None if value is None else int(value)

    @property
    def step(self) -> int:
        """The last step of which there is a row."""
        return int(self.rows[-1]["step"]) if self.rows else 0


def at(value: Any, *path: str) -> Any:
    """Return what stands at *path* in nested objects; None where there is nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def section(value: Row, name: str) -> Row:
    """Return the object at *name*; {} where there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def vector(value: Any, length: int) -> Array | None:
    """Return a list of *length* numbers as float64, null as NaN; None for anything else, or without any number."""
    if not isinstance(value, list) or len(value) != length or not length:
        return None
    values = np.array([np.nan if (v := number(item)) is None else v for item in value])
    return None if np.isnan(values).all() else values


def load_run(path: Path) -> Run:
    """Read a run folder, complete or not, damaged or not.

    Raises:
        RunError: none of a run's files is there.
    """
    run = Run(path)
    names = ("config", "data", "environment", "metrics", "summary", "confusion", "calibration")
    known = {name: path / f"{name}.{'jsonl' if name == 'metrics' else 'json'}" for name in names}
    if not any(file.exists() for file in known.values()):
        raise RunError(
            f"{path} is no run folder: it has none of {', '.join(f.name for f in known.values())}"
        )
    for name in ("config", "data", "environment"):
        setattr(run, name, _object(run, known[name], "the report says nothing that depends on it"))
    run.rows = _rows(run, known["metrics"])
    complete = known["summary"].exists()
    for name in ("summary", "confusion", "calibration"):
        if known[name].exists():
            setattr(run, name, _object(run, known[name], "it is left out"))
    if not complete:
        of = f" of {run.steps:,}" if run.steps else ""
        run.problems.append(
            f"The training is not complete (there is no summary.json): this is what there is up to step "
            f"{run.step:,}{of}."
        )
    if not run.class_names:
        run.problems.append(
            "No file says what the classes are: nothing can be shown class by class."
        )
    _load_beliefs(run, complete)
    return run


def _object(run: Run, path: Path, consequence: str) -> Row:
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
        reason = f"it holds a {type(value).__name__}, not an object"
    except FileNotFoundError:
        reason = "it is not there"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    run.problems.append(f"{path.name} cannot be read ({reason}): {consequence}.")
    return {}


def _rows(run: Run, path: Path) -> list[Row]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        run.problems.append(
            f"metrics.jsonl cannot be read ({error.strerror or error}): there are no curves over time."
        )
        return []
    rows: list[Row] = []
    damaged = []
    for place, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            step = number(row["step"])
            if not isinstance(row["event"], str) or step is None or step < 0:
                raise ValueError
            rows.append(row | {"step": int(step)})
        except (*UNREADABLE, RecursionError):
            damaged.append(place)
    if damaged == [len(lines)]:
        run.problems.append("The last line of metrics.jsonl was cut off; it is left out.")
    elif damaged:
        places = ", ".join(map(str, damaged[:5])) + (" ..." if len(damaged) > 5 else "")
        run.problems.append(
            f"{len(damaged)} of {len(lines)} lines of metrics.jsonl are damaged (line {places}); they are left out."
        )
    if not rows:
        run.problems.append("metrics.jsonl has no row yet: there are no curves over time.")
    return sorted(rows, key=lambda row: int(row["step"]))


def _load_beliefs(run: Run, complete: bool) -> None:
    path = run.path / "beliefs.safetensors"
    lacking = (
        "so there is no map, no gallery, no reliability diagram and no list of what to label next"
    )
    refresh = f"'daso report {run.path} --refresh'"
    if not path.exists():
        made = f"{refresh} makes it from the last checkpoint, if the data is where it was"
        often = (
            "" if complete else "; the training writes it now and then, in 2% of its time at most"
        )
        run.problems.append(f"There is no beliefs.safetensors, {lacking}: {made}{often}.")
        return
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("beliefs", "null"))
            if not isinstance(about, dict) or about.get("version") != 1:
                raise ValueError("its header is not one that this version of daso reads")
            run.arrays, run.beliefs = {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        run.problems.append(
            f"beliefs.safetensors cannot be read ({error}), {lacking}: {refresh} makes it anew."
        )
        return
    step = number(run.beliefs.get("step"))
    if not complete and step is not None:
        run.problems.append(
            f"What is said of single images is as of step {step:,.0f}: {refresh} looks at them anew, with the last "
            f"checkpoint."
        )
    if "pool.index" not in run.arrays:
        run.problems.append("The run has no unlabelled images, so there is no map and no gallery.")
