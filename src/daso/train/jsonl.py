"""Rows of numbers as lines of JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from daso.errors import RunError

Row = dict[str, Any]


def plain(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by None, all the way down."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_line(row: Row) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(plain(row), allow_nan=False) + "\n"


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file, none if it is not there. A last line that was cut off is left out.

    Raises:
        RunError: another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise RunError(f"{path}, line {number}: not JSON ({error})") from error
    return rows
