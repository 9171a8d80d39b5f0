"""A file of results: a row is there as a whole or not at all."""

from __future__ import annotations

import csv
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daso.errors import RunError
from daso.report.results import append_row, has_row

KEY = {"setting": "a", "seed": "1"}
ROW: dict[str, Any] = {"setting": "a", "seed": 1, "method": "fixmatch, of all", "accuracy": 71.5}


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Let writes beyond a file size fail, as on a full disk: part of the last is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_appended_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    for _ in range(2):
        append_row(path, ROW, KEY)
    append_row(path, {**ROW, "seed": 2})
    expected = {name: str(value) for name, value in ROW.items()}
    assert rows_of(path) == [expected, {**expected, "seed": "2"}]
    assert has_row(path, KEY)
    assert not has_row(path, {"seed": "3"})
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"other columns: .*'extra'"):
        append_row(path, {**ROW, "extra": 1})
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    append_row(path, ROW, KEY)
    before = path.read_bytes()
    with no_file_longer_than(len(before) + 12), pytest.raises(RunError, match="cannot write"):
        append_row(path, {**ROW, "seed": 2})
    assert path.read_bytes() == before
    append_row(path, {**ROW, "seed": 2})
    assert [row["seed"] for row in rows_of(path)] == ["1", "2"]


@pytest.mark.parametrize("left", [2, 9, 20])
def test_half_a_row_of_a_killed_process_is_no_row_and_is_taken_away(
    tmp_path: Path, left: int
) -> None:
    path = tmp_path / "results.csv"
    append_row(path, {**ROW, "setting": "b"})
    append_row(path, ROW, KEY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-left])
    assert not has_row(path, KEY)
    append_row(path, ROW, KEY)
    assert path.read_bytes() == whole
