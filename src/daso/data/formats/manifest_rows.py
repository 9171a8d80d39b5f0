"""The rows of a manifest, whatever its format: CSV, TSV, JSON lines or parquet; with their line numbers."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daso.data.formats.arrow import import_pyarrow, open_parquet
from daso.errors import DataError

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
"""Endings of files that are read as manifests."""

COLUMNS = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "img",
        "img_path",
    ),
    "label": ("label", "class", "class_name", "classname", "category", "target", "y"),
    "split": ("split", "part", "subset"),
}
"""What the columns may be called, in any case; the first of them that is there is taken."""

LONGEST_LINE = 2**20
"""Bytes of a line; a longer one is refused."""
MOST_ROWS = 5_000_000
SHOWN = 80
"""Characters of a value that a message repeats."""


@dataclass(frozen=True)
class ManifestRow:
    """A row of a manifest.

    Attributes:
        line: in the file, counted from 1; of a parquet file the row, counted from 0.
        path: as it stands there, not empty.
        label: "" where there is none.
        split: "" where there is none.
    """

    line: int
    path: str
    label: str
    split: str


Bad = list[tuple[int, str]]
"""Line and reason of rows that cannot be used."""
Records = Iterator[tuple[int, dict[str, Any] | str]]
"""Line and values by column; or why the line is no row."""


def read_rows(file: Path, bad: Bad) -> tuple[list[ManifestRow], dict[str, str]]:
    """Read all rows of a manifest.

    Args:
        file: its ending says what it is.
        bad: gets the rows that cannot be used.

    Returns:
        The rows, and for "path", "label" and "split", where it is there, the column that it was read from.

    Raises:
        DataError: the file cannot be read to its end as what it is, or it has no column for the path.
        MissingDependencyError: a parquet file needs pyarrow.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    names: dict[str, None] = {}
    try:
        for line, record in _records(file):
            if isinstance(record, str):
                bad.append((line, record))
                continue
            for name in record:
                names.setdefault(name)
            found.append((line, record))
            if len(found) > MOST_ROWS:
                raise DataError(f"{file}: more than {MOST_ROWS:,} rows")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    if not found and not bad:
        raise DataError(f"{file}: no rows in it")
    columns = choose_columns(list(names))
    for role, what in (("path", "path of an image"), ("label", "label")):
        if role not in columns and found:
            raise DataError(
                f"{file}: no column for the {what}; it has {', '.join(map(repr, names))[:500] or 'none'}, "
                f"and the {role} is called {', '.join(COLUMNS[role])}"
            )
    rows: list[ManifestRow] = []
    for line, record in found:
        try:
            texts = {role: _text(record.get(column), role) for role, column in columns.items()}
            if not texts["path"]:
                raise ValueError("names no image")
            rows.append(
                ManifestRow(
                    line,
                    texts["path"],
                    texts.get("label", "").rstrip("\r\n"),
                    texts.get("split", ""),
                )
            )
        except ValueError as error:
            bad.append((line, str(error)))
    bad.sort()
    return rows, columns


def read_paths(file: Path) -> Iterator[tuple[int, str | DataError]]:
    """Yield the line and the path of each row of a manifest, or why it has none, one at a time.

    Raises:
        DataError: see ``read_rows``.
        MissingDependencyError: a parquet file needs pyarrow.
    """
    column: str | None = None
    try:
        for line, record in _records(file):
            if isinstance(record, str):
                yield line, DataError(record)
                continue
            if column is None:
                column = choose_columns(list(record)).get("path")
                if column is None:
                    raise _no_path_column(file, list(record))
            try:
                text = _text(record.get(column), "path")
            except ValueError as error:
                yield line, DataError(str(error))
                continue
            yield line, text or DataError("names no image")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _records(file: Path) -> Records:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file)
    return _csv(file) if suffix in (".csv", ".tsv") else _json_lines(file)


def _no_path_column(file: Path, names: Sequence[str]) -> DataError:
    return DataError(
        f"{file}: no column for the path of an image; it has {', '.join(map(repr, names))[:500] or 'none'}, "
        f"and the path is called {', '.join(COLUMNS['path'])}"
    )


def choose_columns(names: Sequence[str]) -> dict[str, str]:
    """Return which of the columns *names* holds the path, the label and the split."""
    by_name = {name.strip().lower(): name for name in reversed(names)}
    return {
        role: by_name[found]
        for role, called in COLUMNS.items()
        if (found := next((name for name in called if name in by_name), None)) is not None
    }


def where(file: Path, line: int) -> str:
    """Return how messages call a row."""
    return f"{file}, {'row' if file.suffix.lower() == '.parquet' else 'line'} {line}"


def _text(value: Any, role: str) -> str:
    """Return a value as text, "" for none; whole numbers are labels too.

    Raises:
        ValueError: it is anything else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value if value.strip() else ""
    if role == "label" and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) < 2**53 and int(value) == value:
            return str(int(value))
        raise ValueError(f"the label {str(value)[:SHOWN]} is no whole number and no text")
    raise ValueError(
        f"the {role} must be a text, found {type(value).__name__} {str(value)[:SHOWN]!r}"
    )


def _lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text file, one at a time and of bounded length.

    Raises:
        DataError: a line is no UTF-8, holds a NUL character, or is too long.
    """
    with file.open("rb") as stream:
        number = 0
        while content := stream.readline(LONGEST_LINE + 1):
            number += 1
            if number == 1:
                if content.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(
                        f"{file}: is UTF-16; save it as UTF-8 (in spreadsheets: CSV UTF-8)"
                    )
                content = content.removeprefix(b"\xef\xbb\xbf")
            if len(content) > LONGEST_LINE:
                raise DataError(
                    f"{where(file, number)}: longer than {LONGEST_LINE:,} bytes; this is no manifest"
                )
            if b"\0" in content:
                raise DataError(
                    f"{where(file, number)}: holds a NUL character; save the file as plain UTF-8 text"
                )
            try:
                yield content.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where(file, number)}: is not UTF-8 (byte {content[error.start]:#04x} at {error.start + 1}); "
                    "save the file as UTF-8 (in spreadsheets: CSV UTF-8)"
                ) from None


def _csv(file: Path) -> Records:
    lines = _lines(file)
    first = next(lines, "")
    if not first.strip():
        raise DataError(
            f"{file}: its first line is empty; it must name the columns, such as path,label"
        )
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(
        itertools.chain([first], lines),
        delimiter=delimiter,
        skipinitialspace=delimiter != "\t",
        strict=True,
    )
    try:
        names = [name.strip() for name in next(reader)]
        twice = [name for name in names if name and names.count(name) > 1]
        if twice:
            raise DataError(f"{file}: its first line names the column {twice[0][:SHOWN]!r} twice")
        line = reader.line_num + 1
        for fields in reader:
            if any(field.strip() for field in fields):
                if len(fields) == len(names):
                    yield line, dict(zip(names, fields, strict=True))
                else:
                    yield line, f"has {len(fields)} fields, the first line {len(names)}"
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where(file, reader.line_num)}: {error}; mend the quotes or the line"
        ) from None


def _json_lines(file: Path) -> Records:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"is no JSON: {error}"
            continue
        if isinstance(record, dict):
            yield (
                number,
                {
                    name: value if name.strip().lower() in KNOWN else None
                    for name, value in record.items()
                },
            )
        else:
            yield (
                number,
                f'must be an object such as {{"path": ..., "label": ...}}, found {type(record).__name__}',
            )


def _parquet(file: Path) -> Records:
    import_pyarrow("parquet files")
    with open_parquet(file) as table:
        names = [name for name in table.schema.names if name.strip().lower() in KNOWN]
        if len(set(names)) < len(names):
            raise DataError(f"{file}: has a column twice: {', '.join(names)}")
        wanted = list(choose_columns(names).values())
        columns = (
            (value for part in table.column(name) for value in part.to_pylist()) for name in wanted
        )
        others = dict.fromkeys(table.schema.names)
        for number, values in enumerate(zip(*columns, strict=True)):
            yield number, others | dict(zip(wanted, values, strict=True))
        if not wanted:
            yield 0, others


KNOWN = {name for names in COLUMNS.values() for name in names}
