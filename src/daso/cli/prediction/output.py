"""What ``daso predict`` writes: CSV, JSON lines or parquet, in steps that a killed process leaves whole.

While a prediction runs, ``OUT.partial`` holds its rows as JSON lists, one a line; its first line says of what model and
with what options. At the end OUT is made of it in one go. What was written up to a kill is taken up by ``--resume``.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from daso.cli.prediction.inputs import Input
from daso.errors import DataError, MissingDependencyError, OptionError
from daso.files import replacing

Cells = list[Any]
"""The values of the columns: the path first, the error, or None, last."""
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", "": "csv"}
"""By the ending of the output."""
CHUNK = 10_000
"""Rows of a parquet row group."""


def write_csv(file: IO[str], columns: tuple[str, ...] | None, rows: Iterable[Cells]) -> None:
    """Write rows as CSV, numbers with six digits after the point; *columns*, if given, is the first line."""
    writer = csv.writer(file)
    if columns is not None:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row])


def _write_json(file: IO[str], columns: tuple[str, ...], rows: Iterable[Cells]) -> None:
    for row in rows:
        file.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")


def _write_parquet(path: Path, columns: tuple[str, ...], rows: Iterator[Cells]) -> None:
    import pyarrow
    import pyarrow.parquet

    text = {
        name: name in ("path", "class", "error") or name.startswith("class_") for name in columns
    }
    schema = pyarrow.schema(
        [(name, pyarrow.string() if text[name] else pyarrow.float64()) for name in columns]
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(rows, CHUNK)):
            values = {
                name: [_unicode(row[place]) for row in chunk] for place, name in enumerate(columns)
            }
            writer.write_table(pyarrow.table(values, schema=schema))


def _unicode(value: Any) -> Any:
    """Return text that parquet can hold: bytes of a file name that are not Unicode become \\udcNN."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def check_output(out: Path) -> None:
    """Raise early where a file cannot be written.

    Raises:
        OptionError: its ending is of no format.
        MissingDependencyError: a parquet file needs pyarrow.
        DataError: it is a folder, or its folder is not there.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise DataError(
            f"cannot write {out}: {'it is a folder' if out.is_dir() else 'its folder does not exist'}"
        )
    if out.suffix.lower() not in FORMATS:
        raise OptionError(f"{out}: the ending says the format: .csv, .jsonl or .parquet")
    if FORMATS[out.suffix.lower()] == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                f"{out} needs pyarrow: pip install 'daso[parquet]'"
            ) from error


def write_output(out: Path, columns: tuple[str, ...], rows: Iterator[Cells]) -> None:
    """Write all rows into a file in the format of its ending; until it is complete, an old file stays.

    Raises:
        DataError: it cannot be written.
    """
    kind = FORMATS[out.suffix.lower()]
    try:
        with replacing(out) as temporary:
            if kind == "parquet":
                _write_parquet(temporary, columns, rows)
            else:
                with temporary.open(
                    "w", newline="", encoding="utf-8", errors="surrogateescape"
                ) as file:
                    (write_csv if kind == "csv" else _write_json)(file, columns, rows)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror or error}") from error


class Journal:
    """The rows of a prediction that is under way, in a file that outlives the process.

    Args:
        path: of the file.
        task: says what is predicted and how; a journal of another task is not gone on with.
        resume: take up what is there.

    Raises:
        OptionError: there is a journal, and it shall not be taken up, or is of another task.
        DataError: it cannot be written.
    """

    def __init__(self, path: Path, task: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.count = 0
        self.failed = 0
        fingerprint = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:16]
        self._header = json.dumps({"daso predict": fingerprint}).encode() + b"\n"
        try:
            there = path.exists()
            if there and not resume:
                raise OptionError(
                    f"{path} is left of a prediction that was stopped: go on with --resume, or remove it"
                )
            self._file = path.open("r+b" if there else "w+b")
            if there and self._file.readline() != self._header:
                self._file.seek(0)
                if self._file.read(1):
                    raise OptionError(
                        f"{path} is of another model or of other options; remove it to begin anew"
                    )
            self._file.seek(0)
            if not self._file.readline():
                self._file.write(self._header)
                self._file.flush()
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error

    def skip(self, inputs: Iterator[Input]) -> None:
        """Pass over the inputs whose rows are there already, and cut off a row that was not finished.

        Raises:
            DataError: the inputs are no longer those of the journal.
        """
        end = self._file.tell()
        while line := self._file.readline():
            try:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                name, error = row[0], row[-1]
            except (ValueError, LookupError, TypeError):
                break
            expected = next(inputs, None)
            if expected is None or expected.name != name:
                now = "nothing" if expected is None else repr(expected.name)
                raise DataError(
                    f"the images have changed: number {self.count + 1} was {name!r}, now it is {now}; "
                    f"remove {self.path} to begin anew"
                )
            self.count += 1
            self.failed += error is not None
            end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def rows(self, rows: Iterable[Cells]) -> None:
        """Write further rows, complete ones or none."""
        lines = []
        for row in rows:
            lines.append(json.dumps(row).encode() + b"\n")
            self.count += 1
            self.failed += row[-1] is not None
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from error

    def read(self) -> Iterator[Cells]:
        """Yield all rows from the first one."""
        self._file.seek(len(self._header))
        for line in self._file:
            yield json.loads(line)

    def holds_rows(self) -> bool:
        """Whether there is anything that would be lost with the file."""
        return self.path.stat().st_size > len(self._header)

    def close(self, *, remove: bool) -> None:
        """Close the file, and remove it if its rows are elsewhere now."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
