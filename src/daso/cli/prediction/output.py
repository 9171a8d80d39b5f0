"""Write predictions as CSV, JSON lines or parquet, in a way that survives a killed process.

While a prediction runs, ``OUT.partial`` holds its rows as JSON lists, each after two texts that
tell whether the input has changed, below a line that identifies the model and the options. Each
line begins with a checksum: the rows from a damaged one on are computed again. At the end, OUT is
written from it in one go. After a kill, ``--resume`` continues from it.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from daso.cli.prediction.inputs import Input
from daso.errors import DataError, OptionError, import_extra
from daso.files import check_writable, replacing, reported

Cells = list[Any]
"""The values of a row: the path first, the error, or None, last."""
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", "": "csv"}
ROW_GROUP = 10_000
UNKNOWN = "unknown"
"""Class of an input with too little confidence."""


@dataclass(frozen=True)
class Table:
    """The columns of the output.

    Attributes:
        top: number of classes to name.
        probabilities: whether all probabilities are shown.
        unsure: confidence below which the class is "unknown". Several named classes begin with the
            most probable one all the same, as ``class_1``.
    """

    class_names: tuple[str, ...]
    top: int
    probabilities: bool
    unsure: float

    @property
    def _names_best(self) -> bool:
        return self.top > 1 and self.unsure > 0

    @property
    def columns(self) -> tuple[str, ...]:
        names = ["path", "class", "confidence"] + ["class_1"] * self._names_best
        for rank in range(2, self.top + 1):
            names += [f"class_{rank}", f"confidence_{rank}"]
        if self.probabilities:
            names += [f"probability_{name}" for name in self.class_names]
        return (*names, "error")

    def row(self, name: str, probs: npt.NDArray[np.float64] | str) -> Cells:
        """Return the row of an input: its probabilities, (K,), or why it cannot be read."""
        if isinstance(probs, str):
            return [name, *[None] * (len(self.columns) - 2), probs]
        best = np.argsort(-probs, kind="stable")[: self.top].tolist()
        row: Cells = [name]
        for label in best:
            row += [self.class_names[label], round(float(probs[label]), 6)]
        if self._names_best:
            row.insert(3, row[1])
        if probs[best[0]] < self.unsure:
            row[1] = UNKNOWN
        if self.probabilities:
            row += [round(value, 6) for value in probs.tolist()]
        return [*row, None]


def write_csv(file: IO[str], columns: tuple[str, ...] | None, rows: Iterable[Cells]) -> None:
    """Write rows as CSV, floats with six decimals, below the *columns* if given."""
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

    def kind(name: str) -> Any:
        text = name in ("path", "class", "error") or name.startswith("class_")
        return pyarrow.string() if text else pyarrow.float64()

    schema = pyarrow.schema([(name, kind(name)) for name in columns])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(rows, ROW_GROUP)):
            cells = zip(*(map(_unicode, row) for row in chunk), strict=True)
            values = {name: list(column) for name, column in zip(columns, cells, strict=True)}
            writer.write_table(pyarrow.table(values, schema=schema))


def _unicode(value: Any) -> Any:
    """Escape bytes of a file name that are not Unicode as \\udcNN: parquet cannot hold them."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def weights_checksum(model: Path, step: int) -> str:
    """Return a digest of an exported file, or of a run's records of the checkpoint of a step."""
    records = model.glob(f"checkpoints/**/step-{step:09d}.json")
    digest = hashlib.sha256()
    for path in [model] if model.is_file() else sorted(records):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_output(out: Path) -> None:
    """Check early that a file can be written.

    Raises:
        OptionError: its suffix is unknown.
        MissingDependencyError: parquet needs pyarrow.
        DataError: it is a folder, or its folder does not exist.
        RunError: its folder cannot be written.
    """
    if out.is_dir() or not out.parent.is_dir():
        reason = "it is a folder" if out.is_dir() else "its folder does not exist"
        raise DataError(f"cannot write {out}: {reason}")
    check_writable(out.parent)
    if out.suffix.lower() not in FORMATS:
        raise OptionError(f"{out}: unknown suffix; choose from .csv, .jsonl, .parquet")
    if FORMATS[out.suffix.lower()] == "parquet":
        import_extra("pyarrow.parquet", "parquet", f"{out} needs")


def write_output(out: Path, columns: tuple[str, ...], rows: Iterator[Cells]) -> None:
    """Write rows to a file in the format of its suffix.

    An old file stays until the new one is complete.

    Raises:
        DataError: the file cannot be written.
    """
    kind = FORMATS[out.suffix.lower()]
    with reported(f"write {out}", DataError), replacing(out) as temporary:
        if kind == "parquet":
            _write_parquet(temporary, columns, rows)
            return
        write = write_csv if kind == "csv" else _write_json
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            write(file, columns, rows)


class Journal:
    """The rows of a running prediction, in a file that outlives the process.

    Args:
        task: describes the model and the options; a journal of another task is refused.
        resume: continue an existing journal.

    Raises:
        OptionError: a journal exists without *resume*, or belongs to another task.
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, task: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        self.count = 0
        self.failed = 0
        fingerprint = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:16]
        self._header = json.dumps({"daso predict": fingerprint}).encode() + b"\n"
        with reported(f"write {path}", DataError):
            exists = path.exists()
            if exists and not resume:
                raise OptionError(
                    f"{path} is left from a stopped prediction; continue it with --resume, or "
                    "delete it"
                )
            self._file = path.open("r+b" if exists else "w+b")
            content = self._file.readline()
            if not self._header.startswith(content):
                raise OptionError(
                    f"{path} belongs to another model or other options; delete it to start again"
                )
            if content != self._header:  # a new file, or one that was killed in this line
                self._file.seek(0)
                self._file.write(self._header)
                self._file.flush()

    def skip(self, inputs: Iterator[Input]) -> dict[int, Input]:
        """Advance the inputs past the rows of the journal, and drop those from a damaged one on.

        Returns:
            By number of the row, the inputs that could not be read.

        Raises:
            DataError: the inputs differ from those of the journal.
        """
        again: dict[int, Input] = {}
        end = self._file.tell()
        while line := self._file.readline():
            try:
                origin, checksum, name, *_, error = _values(line)
            except ValueError:
                break
            expected = next(inputs, None)
            if expected is None or expected.name != name:
                now = f"now it is {'nothing' if expected is None else repr(expected.name)}"
            elif error is None and origin != expected.origin() and checksum != expected.checksum():
                now = "now it has another content"
            else:
                now = ""
            if expected is None or now:
                raise DataError(
                    f"the images have changed: number {self.count + 1} was {name!r}, {now}; delete "
                    f"{self.path} to start again"
                )
            if error is not None:
                again[self.count] = expected
            self.count += 1
            end = self._file.tell()
        self.failed = len(again)
        self._file.seek(end)
        self._file.truncate()
        return again

    def replace(self, rows: Mapping[int, tuple[Input, Cells]]) -> None:
        """Replace rows, by their numbers, in one go."""
        with reported(f"write {self.path}", DataError):
            self._file.seek(len(self._header))
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                file.write(self._header)
                for number, line in enumerate(self._file):
                    file.write(_line(*rows[number]) if number in rows else line)
            self._file.close()
            self._file = self.path.open("r+b")
            self._file.seek(0, os.SEEK_END)
        self.failed += sum(row[-1] is not None for _, row in rows.values()) - len(rows)

    def write(self, inputs: Sequence[Input], rows: Sequence[Cells]) -> None:
        with reported(f"write {self.path}", DataError):
            for item, row in zip(inputs, rows, strict=True):
                self._file.write(_line(item, row))
            self._file.flush()
        self.count += len(rows)
        self.failed += sum(row[-1] is not None for row in rows)

    def read(self) -> Iterator[Cells]:
        self._file.seek(len(self._header))
        for line in self._file:
            yield _values(line)[2:]

    def remove_if_empty(self) -> None:
        if self.path.stat().st_size <= len(self._header):
            self.remove()

    def remove(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def _line(item: Input, row: Cells) -> bytes:
    text = json.dumps([item.origin(), item.checksum(), *row]).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _values(line: bytes) -> Cells:
    """Return the values of a line; raise a ``ValueError`` if it is damaged."""
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        raise ValueError("damaged")
    values = json.loads(text)
    if not isinstance(values, list):
        raise ValueError("no row")
    return values
