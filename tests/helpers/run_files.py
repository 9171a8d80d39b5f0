"""What tests of run folders do with one: read all of it, compare its rows, edit it, take its end away."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from daso.files import CHECKSUM, Row, read_json, read_rows, to_line
from daso.train.loop import never
from daso.train.prepare import Prepared
from daso.train.run import train_run

TIMES = ("seconds", "steps_per_second")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder but the lock, which holds nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def edit(path: Path, change: Callable[[Row], object]) -> None:
    value = json.loads(path.read_text())
    value.pop(CHECKSUM, None)
    change(value)
    path.write_text(json.dumps(value))


def comparable(folder: Path) -> list[Row]:
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def without_times(row: Row) -> str:
    """Return a row as it is written, but for its times: NaN equals NaN, and the order counts."""
    return to_line({key: value for key, value in row.items() if key not in TIMES})


def newest_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").glob("step-*.safetensors")))


def assert_same_run(one: Path, other: Path) -> None:
    """Compare rows, last checkpoint, summary and beliefs of two complete runs, bit for bit but for times."""
    assert comparable(one) == comparable(other)
    first, second = newest_tensors(one), newest_tensors(other)
    assert first.keys() == second.keys()
    assert [n for n, value in first.items() if not torch.equal(value, second[n])] == []
    summaries = [read_json(folder / "summary.json") | {"seconds": 0} for folder in (one, other)]
    assert summaries[0] == summaries[1]
    beliefs = [(folder / "beliefs.safetensors").read_bytes() for folder in (one, other)]
    assert beliefs[0] == beliefs[1]


def rewind(folder: Path) -> None:
    """Turn a complete run into one that was stopped after the checkpoint before the last."""
    newest = max((folder / "checkpoints").glob("step-*.json"))
    newest.with_suffix(".safetensors").unlink()
    newest.unlink()
    (folder / "summary.json").unlink()


def train(prepared: Prepared, folder: Path, calls: int | None = None) -> Path:
    """Train a run; stop at the given call of its function *stop*, of which the first is after step 0."""
    counted = itertools.count()
    list(train_run(prepared, folder, never if calls is None else lambda: next(counted) >= calls))
    return folder
