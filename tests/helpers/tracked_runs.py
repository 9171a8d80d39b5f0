"""Runs that trackers follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]
Capture = pytest.CaptureFixture[str]
TINY = ["--network", "small-4", "--batch", "8", "--evaluate-every", "2", "--device", "cpu"]
TINY += ["--method", "fixmatch"]


def cut_back(folder: Path, step: int) -> None:
    """Leave a run as if killed after the checkpoint of a step, with later rows written."""
    (folder / "summary.json").unlink()
    for path in (folder / "checkpoints").iterdir():
        if int(path.name[5:14]) > step:
            path.unlink()


def begun_run(folder: Path) -> Path:
    """Write the files of a run that a tracker reads."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"train": {"steps": 5}}))
    (folder / "data.json").write_text(json.dumps({"class_names": ["a", "b"]}))
    return folder


ROWS = [{"event": "train", "step": step, "loss": float(step)} for step in (1, 2)]
