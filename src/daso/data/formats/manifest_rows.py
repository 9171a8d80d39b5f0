"""The rows of a manifest in CSV, TSV, JSON lines or parquet, with their line numbers."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daso.data.formats.arrow import Table, import_pyarrow, open_parquet
from daso.data.formats.table_columns import split_columns
from daso.data.part_names import is_flag, reads_like_split
from daso.errors import DataError, in_line

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
COLUMNS = {
    "path": (
        "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path",
        "img", "img_path",
    ),
    "label": ("label", "class", "class_name", "classname", "category", "target", "y"),
    "split": ("split", "part", "subset"),
}  # fmt: skip
"""Names of the columns, in any case; the first one present is used."""
FILE_ENDING = re.compile(r"\.\w{2,5}[\s\"]*$")
USED = {name for names in COLUMNS.values() for name in names}
LONGEST_LINE = 2**20
"""Maximum bytes of a line."""
MOST_ROWS = 5_000_000
SHOWN = 80
"""Characters of a value that a message quotes."""
SEPARATOR = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)
QUOTES = 'check its quotes: a field that holds " must be quoted, and the " in it doubled'


@dataclass(frozen=True)
class ManifestRow:
    """A row of a manifest.

    Attributes:
        line: in the file, from 1; in a parquet file the row, from 0.
        path: as written, not empty.
        label: "" if missing.
        split: "" if missing.
    """

    line: int
    path: str
    label: str
    split: str


Bad = list[tuple[int, str]]
"""Line and reason of unusable rows."""
Record = tuple[int, dict[str, Any]]
Records = Iterator[tuple[int, dict[str, Any] | str]]
"""Line, and its values by column or the reason why it is unusable."""


def read_rows(file: Path, bad: Bad) -> tuple[list[ManifestRow], dict[str, str], list[str]]:
    """Return a manifest's usable rows, the columns of "path", "label" and "split", and the others.

    A column that reads like a split is one, whatever its name. The unusable rows are added to
    *bad*.
    """
    records: list[Record] = []
    names: dict[str, None] = {}
    for line, record in _records(file):
        if isinstance(record, str):
            bad.append((line, record))
            continue
        for name in record:
            names.setdefault(name)
        records.append((line, record))
        if len(records) > MOST_ROWS:
            raise DataError(f"{file}: more than {MOST_ROWS:,} rows")
    if not records and not bad:
        raise DataError(f"{file}: no rows in it")
    columns = choose_columns(list(names), file)
    for role in ("path", "label"):
        if role not in columns and records:
            raise _no_column(file, role, list(names))
    unused = [name for name in names if name not in columns.values()]
    if "split" not in columns:
        _add_split(file, columns, unused, records)
    rows: list[ManifestRow] = []
    for line, record in records:
        try:
            texts = {role: _text(record.get(column), role) for role, column in columns.items()}
            if not texts["path"]:
                raise ValueError("names no image")
            label = texts.get("label", "").rstrip("\r\n")
            rows.append(ManifestRow(line, texts["path"], label, texts.get("split", "")))
        except ValueError as error:
            bad.append((line, str(error)))
    bad.sort()
    return rows, columns, unused


def _add_split(
    file: Path, columns: dict[str, str], unused: list[str], records: Sequence[Record]
) -> None:
    """Move the column that reads like a split from the unused ones to the others."""
    cure = f"name the column of the splits {COLUMNS['split'][0]!r}, with train, val and test in it"
    splits, flags = (
        [name for name in unused if reads(name, (record.get(name) for _, record in records))]
        for reads in (reads_like_split, is_flag)
    )
    if len(splits) > 1 or (flags and not splits):
        found = splits or flags
        both = " and ".join(map(repr, found)) + (" read" if found[1:] else " reads")
        raise DataError(f"{file}: {both} like a split; {cure}, or rename it")
    for name in splits:
        columns["split"] = name
        unused.remove(name)


def read_paths(file: Path) -> Iterator[tuple[int, str | DataError]]:
    """Yield the line and the path of each row, or the error of a row without one."""
    column: str | None = None
    for line, record in _records(file):
        if isinstance(record, str):
            yield line, DataError(record)
            continue
        if column is None:
            column = choose_columns(list(record), file).get("path")
            if column is None:
                raise _no_column(file, "path", list(record))
        try:
            text = _text(record.get(column), "path")
        except ValueError as error:
            yield line, DataError(str(error))
            continue
        yield line, text or DataError("names no image")


def _records(file: Path) -> Records:
    read = {".parquet": _parquet, ".csv": _csv, ".tsv": _csv}.get(file.suffix.lower(), _json_lines)
    try:
        yield from read(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _no_column(file: Path, role: str, names: Sequence[str]) -> DataError:
    columns = ", ".join(map(repr, names))[:500] or "none"
    accepted = ", ".join(map(repr, COLUMNS[role]))
    return DataError(
        f"{file}: no column for the {role}; it has {columns}; rename the one with the {role} to "
        f"one of {accepted}"
    )


def choose_columns(names: Sequence[str], file: Path) -> dict[str, str]:
    """Return the columns of the path, the label and the split."""
    by_name: dict[str, str] = {}
    for name in names:
        other = by_name.setdefault(name.strip().lower(), name)
        if name != other and name.strip().lower() in USED:
            raise DataError(f"{file}: the columns {other!r} and {name!r} have one name; keep one")
    return {
        role: by_name[first]
        for role, valid in COLUMNS.items()
        if (first := next((name for name in valid if name in by_name), None)) is not None
    }


def where(file: Path, line: int) -> str:
    """Name a row for messages."""
    return f"{file}, {'row' if file.suffix.lower() == '.parquet' else 'line'} {line}"


def _text(value: Any, role: str) -> str:
    """Return a value as text, "" if missing; whole numbers are labels too."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value if value.strip() else ""
    if role == "label" and isinstance(value, int):
        return str(value)
    if role == "label" and isinstance(value, float):
        if abs(value) < 2**53 and int(value) == value:
            return str(int(value))
        raise ValueError(f"the label {str(value)[:SHOWN]} is neither a whole number nor a text")
    kind = type(value).__name__
    raise ValueError(f"the {role} must be a text, found {kind} {str(value)[:SHOWN]!r}")


def _lines(file: Path) -> Iterator[str]:
    cure = "save it as UTF-8 (in spreadsheets: CSV UTF-8)"
    with file.open("rb") as stream:
        number = 0
        while content := stream.readline(LONGEST_LINE + 1):
            number += 1
            place = where(file, number)
            if number == 1:
                if content.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{file}: is UTF-16 or UTF-32; {cure}")
                content = content.removeprefix(b"\xef\xbb\xbf")
            if len(content) > LONGEST_LINE:
                raise DataError(f"{place}: longer than {LONGEST_LINE:,} bytes; not a manifest")
            if b"\0" in content:
                raise DataError(f"{place}: has a NUL character; save it as plain UTF-8 text")
            try:
                yield content.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {content[error.start]:#04x} at {error.start + 1}"
                raise DataError(f"{place}: is not UTF-8 ({byte}); {cure}") from None


def _csv(file: Path) -> Records:
    lines = _lines(file)
    first = next(lines, "")
    if not first.strip():
        raise DataError(f"{file}: its first line is empty; name the columns, such as path,label")
    ends = "save it with line ends of LF or CR LF"
    if "\r" in first.rstrip("\r\n"):
        raise DataError(f"{file}: its lines end in CR alone; {ends}")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    if told := SEPARATOR.fullmatch(first):  # a line for spreadsheets, above the names
        delimiter = told.group(1)
    text = itertools.chain([first], lines)
    skip = delimiter != "\t"
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=skip, strict=True)
    line = 1
    try:
        if told:
            next(reader)
        names = [name.strip() for name in next(reader, [])]
        repeated = [name for name in names if name and names.count(name) > 1]
        if repeated:
            raise DataError(f"{file}: its first line has the column {repeated[0][:SHOWN]!r} twice")
        line = reader.line_num + 1
        for fields in reader:
            if any(field.strip() for field in fields):
                if reader.line_num > line and _holds_rows(fields, delimiter, len(names)):
                    yield line, f"has a quote that closes in line {reader.line_num}; {QUOTES}"
                elif len(fields) == len(names):
                    yield line, dict(zip(names, fields, strict=True))
                else:
                    yield line, f"has {len(fields)} fields, the first line {len(names)}"
            line = reader.line_num + 1
    except csv.Error as error:
        if "new-line character" in str(error):
            raise DataError(f"{where(file, line)}: a CR ends a line within it; {ends}") from None
        read = f" (read to line {reader.line_num})" if reader.line_num > line else ""
        raise DataError(f"{where(file, line)}: {error}{read}; {QUOTES}") from None


def _holds_rows(fields: Sequence[str], delimiter: str, count: int) -> bool:
    """Whether a field has, after its first line, one that reads like a row with a file's name."""
    lines = (line.split(delimiter) for field in fields for line in field.splitlines()[1:])
    return any(len(line) >= count and any(map(FILE_ENDING.search, line)) for line in lines)


def object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, in which no column's name may stand twice: which value is meant?"""
    record = dict(pairs)
    if len(record) < len(pairs):
        for name in USED & record.keys():
            if sum(name == other for other, _ in pairs) > 1:
                raise DataError(f"has the name {name!r} twice")
    return record


def _json_lines(file: Path) -> Records:
    for number, line in enumerate(_lines(file), 1):
        if number == 1 and line.lstrip().startswith("["):
            raise DataError(f"{file}: is one list; write an object per line, without [ and ]")
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=object_of)
        except DataError as error:
            yield number, str(error)
            continue
        except (ValueError, RecursionError) as error:
            yield number, f"is not JSON: {in_line(error)}"
            continue
        if isinstance(record, dict):
            # Values of other columns may be large.
            yield (
                number,
                {k: v if k.strip().lower() in USED else str(v)[:SHOWN] for k, v in record.items()},
            )
        else:
            kind = type(record).__name__
            yield number, f'must be an object such as {{"path": ..., "label": ...}}, found {kind}'


def _refuse_images(table: Table, column: str | None, file: Path) -> None:
    """Refuse a column that has the images themselves, not their paths."""
    import pyarrow.types as types

    kind = None if column is None else table.schema.field(column).type
    binary = (types.is_struct, types.is_binary, types.is_large_binary, types.is_binary_view)
    if kind is not None and any(holds_bytes(kind) for holds_bytes in binary):
        raise DataError(
            f"{file}: the column {column!r} holds images ({kind}), not paths. To train on them, "
            "call the file train.parquet (or val-*.parquet ...) and give its folder; to classify "
            "them, write them to files"
        )


def _parquet(file: Path) -> Records:
    import_pyarrow("parquet files")
    with open_parquet(file) as table:
        names = [name for name in table.schema.names if name.strip().lower() in USED]
        if len(set(names)) < len(names):
            raise DataError(f"{file}: has a column twice: {', '.join(names)}")
        columns_of = choose_columns(names, file)
        _refuse_images(table, columns_of.get("path"), file)
        used = list(columns_of.values())
        used += split_columns(table, [name for name in table.schema.names if name not in used])
        columns = (
            (value for part in table.column(name) for value in part.to_pylist()) for name in used
        )
        record = dict.fromkeys(table.schema.names)
        for number, values in enumerate(zip(*columns, strict=True)):
            yield number, record | dict(zip(used, values, strict=True))
        if not used:
            yield 0, record
