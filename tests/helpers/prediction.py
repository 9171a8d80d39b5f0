"""The command daso predict, and what it answers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from daso.cli import main

Capture = pytest.CaptureFixture[str]
Rows = list[dict[str, str]]
NAMES = [str(k) for k in range(10)]
COUNT = 40
"""Number of images in the folder ``images``."""


def predict(capsys: Capture, *arguments: str | Path, status: int = 0) -> tuple[Rows, str]:
    assert main(["predict", *map(str, arguments), "--device", "cpu"]) == status
    captured = capsys.readouterr()
    return list(csv.DictReader(io.StringIO(captured.out))), captured.err
