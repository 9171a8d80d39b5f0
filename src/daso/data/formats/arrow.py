"""Parquet and Arrow files, opened through pyarrow and read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daso.errors import DataError, first_line, import_extra

CHUNK = 512
END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of an Arrow stream."""


@dataclass(frozen=True)
class Table:
    """An open file.

    Attributes:
        column: yields the batches of one column.
        batch: returns the batch of a column that holds a row, and the number of its first row;
            None: they are counted in ``column``.
    """

    schema: Any
    column: Callable[[str], Generator[Any]]
    batch: Callable[[str, int], tuple[int, Any]] | None = None

    def batch_with(self, name: str, row: int) -> tuple[int, Any]:
        """Return the batch of a column that holds a row, and the number of its first row."""
        if self.batch is not None:
            return self.batch(name, row)
        return _find_batch(self.column(name), 0, row)


Opener = Callable[[Path], AbstractContextManager[Table]]


def import_pyarrow(what: str) -> Any:
    """Import pyarrow; *what* begins the error without it."""
    return import_extra("pyarrow", "parquet", f"{what} need")


def _find_batch(batches: Generator[Any], first: int, row: int) -> tuple[int, Any]:
    with closing(batches):
        for batch in batches:
            if row < first + len(batch):
                return first, batch
            first += len(batch)
    raise DataError(f"has no row {row}; it had one; start again")


@contextmanager
def open_parquet(file: Path) -> Iterator[Table]:
    """Open a parquet file; pyarrow's errors become DataError."""
    with _damage_named(file, "parquet"):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as opened:

            def column(name: str, groups: list[int] | None = None) -> Generator[Any]:
                some = {"batch_size": CHUNK, "columns": [name], "row_groups": groups}
                for batch in opened.iter_batches(**some):
                    yield batch.column(0)

            def batch(name: str, row: int) -> tuple[int, Any]:
                first = 0
                for group in range(opened.metadata.num_row_groups):
                    rows = opened.metadata.row_group(group).num_rows
                    if row < first + rows:
                        return _find_batch(column(name, [group]), first, row)
                    first += rows
                return _find_batch(column(name, []), 0, row)

            yield Table(opened.schema_arrow, column, batch)


@contextmanager
def open_arrow(file: Path) -> Iterator[Table]:
    """Open an Arrow file in the streaming format; pyarrow's errors become DataError."""
    with _damage_named(file, "Arrow"):
        import pyarrow.ipc

        # Without it pyarrow takes a stream that was cut between two batches for a whole one.
        with file.open("rb") as raw:
            raw.seek(max(0, file.stat().st_size - len(END)))
            if raw.read() != END:
                raise ValueError("cut short, the mark of its end is missing")
        with pyarrow.memory_map(str(file)) as mapped, pyarrow.ipc.open_stream(mapped) as opened:

            def column(name: str) -> Generator[Any]:
                for batch in opened:
                    # Offsets in a damaged file may point outside it.
                    batch.validate(full=True)
                    yield batch.column(name)

            yield Table(opened.schema, column)


@contextmanager
def _damage_named(file: Path, kind: str) -> Iterator[None]:
    ordinary = import_pyarrow(f"{kind} files").ArrowException
    try:
        yield
    except DataError:
        raise
    # Damaged metadata raises the others.
    except (ordinary, OSError, ValueError, KeyError, MemoryError, RecursionError) as error:
        reason = first_line(error)[:300]
        raise DataError(f"{file}: not a readable {kind} file: {reason}; fetch it again") from error
