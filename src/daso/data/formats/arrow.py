"""Tables of encoded images with labels, in parquet or Arrow files, by way of pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.class_names import in_order
from daso.data.images.encoded import EncodedImages, origin_of
from daso.data.listing import PARTS, Listing
from daso.data.source import UNLABELED
from daso.errors import DataError, MissingDependencyError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
CHUNK = 512
Labels = list[int] | list[str]


@dataclass(frozen=True)
class Table:
    """An open file: its schema, and a way through the rows of one column, some at a time."""

    schema: Any
    column: Callable[[str], Iterator[Any]]


def import_pyarrow(what: str) -> Any:
    """Import pyarrow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(f"{what} need pyarrow: pip install 'daso[parquet]'") from error
    return pyarrow


@contextmanager
def open_parquet(file: Path) -> Iterator[Table]:
    """Open a parquet file; pyarrow's errors come out as DataError."""
    with _damage_named(file, "parquet"):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(file) as opened:

            def column(name: str) -> Iterator[Any]:
                for batch in opened.iter_batches(batch_size=CHUNK, columns=[name]):
                    yield batch.column(0)

            yield Table(opened.schema_arrow, column)


@contextmanager
def open_arrow(file: Path) -> Iterator[Table]:
    """Open an Arrow file in the streaming format; pyarrow's errors come out as DataError."""
    with _damage_named(file, "Arrow"):
        import pyarrow.ipc

        with pyarrow.memory_map(str(file)) as mapped, pyarrow.ipc.open_stream(mapped) as opened:

            def column(name: str) -> Iterator[Any]:
                for batch in opened:
                    # Offsets in a damaged file may lead outside of it; nothing is read before they are checked.
                    batch.validate(full=True)
                    yield batch.column(name)

            yield Table(opened.schema, column)


@contextmanager
def _damage_named(file: Path, kind: str) -> Iterator[None]:
    pyarrow = import_pyarrow(f"{kind} files")
    try:
        yield
    except DataError:
        raise
    # ArrowException covers what pyarrow says of damage; damaged metadata of other kinds raises the others.
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        KeyError,
        MemoryError,
        RecursionError,
    ) as error:
        reason = (
            str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        )
        raise DataError(f"{file}: not a readable {kind} file: {reason}; fetch it again") from error


class Shards:
    """The files of one part, opened again for every pass so that a pass holds a few images at a time.

    Attributes:
        files: at least one; their columns agree.
        image, label: the columns.
        metadata: of the first file's schema.
        with_paths: whether images may be in files of their own, of which the rows have the paths.

    Raises:
        DataError: a file is damaged, has not the columns, or others than the first one.
    """

    def __init__(
        self, files: Sequence[Path], opening: Callable[[Path], Any], *, with_paths: bool = False
    ) -> None:
        self.files, self.opening, self.with_paths = list(files), opening, with_paths
        self.image, self.label = "", ""
        self.metadata: dict[bytes, bytes] = {}
        for number, file in enumerate(self.files):
            with opening(file) as table:
                found = _columns(table.schema, file)
                if number == 0:
                    self.image, self.label = found
                    self.metadata = table.schema.metadata or {}
                elif found != (self.image, self.label):
                    raise DataError(f"{file}: its columns differ from {self.files[0].name}'s")
        self.rows: list[int] = []

    def labels(self) -> Labels:
        """Read the labels of all rows: integers, -1 where unknown; or texts, "" where unknown.

        Raises:
            DataError: there are no rows.
        """
        found: list[Any] = []
        self.rows = []
        for file in self.files:
            before = len(found)
            with self.opening(file) as table:
                for column in table.column(self.label):
                    found += column.to_pylist()
            self.rows.append(len(found) - before)
        if not found:
            raise DataError(f"{self.files[0]}: no rows in it")
        if any(isinstance(value, str) for value in found):
            return ["" if value is None else str(value) for value in found]
        return [UNLABELED if value is None else int(value) for value in found]

    def encoded(self, labels: npt.NDArray[np.int64]) -> EncodedImages:
        """Return the pool of all images; ``labels()`` must have been read."""

        def origins() -> Iterator[str]:
            return map(origin_of, self.files)

        return EncodedImages(
            labels, self._name_of, self._image_chunks, from_files=False, origins=origins
        )

    def _image_chunks(self) -> Iterator[Sequence[Path | bytes]]:
        for file, rows in zip(self.files, self.rows, strict=True):
            count = 0
            with self.opening(file) as table:
                for column in table.column(self.image):
                    for start in range(0, len(column), CHUNK):
                        chunk = self._contents(column.slice(start, CHUNK))
                        count += len(chunk)
                        yield chunk
            if count != rows:
                raise DataError(f"{file}: {rows} labels, but {count} images; fetch it again")

    def _contents(self, column: Any) -> list[Path | bytes]:
        import pyarrow.types

        struct = pyarrow.types.is_struct(column.type)
        contents = (column.field("bytes") if struct else column).to_pylist()
        if self.with_paths and struct and column.type.get_field_index("path") >= 0:
            paths = column.field("path").to_pylist()
            return [c or (Path(p) if p else b"") for c, p in zip(contents, paths, strict=True)]
        # No bytes decode to "not a readable image": named like any other bad row.
        return [content or b"" for content in contents]

    def _name_of(self, index: int) -> str:
        for file, rows in zip(self.files, self.rows, strict=True):
            if index < rows:
                return f"{file}, row {index}"
            index -= rows
        return f"row {index}"


def list_shards(
    shards: dict[str, Shards], class_names: Sequence[str], *, name: str, where: Path
) -> Listing:
    """Put the parts of a data set together; training images without a label join the unlabelled ones.

    Args:
        shards: by part, of ``PARTS``.
        class_names: of integer labels; none: they are the numbers. Labels that are texts are the names.
        name, where: see ``Listing``.

    Raises:
        DataError: a label is out of range or missing in a hold-out, or a class has no labelled image.
    """
    found = {part: shards[part].labels() for part in PARTS if part in shards}
    if any(isinstance(label, str) for labels in found.values() for label in labels[:1]):
        found, class_names = _numbered(
            {part: [_text(v) for v in labels] for part, labels in found.items()}
        )
    elif not class_names:
        largest = max(int(label) for labels in found.values() for label in labels)
        if largest >= sum(map(len, found.values())):
            raise DataError(
                f"{where}: the largest label is {largest}; number the classes 0, 1, 2 ..."
            )
        class_names = tuple(str(label) for label in range(largest + 1))
    pools: dict[str, EncodedImages] = {}
    without: EncodedImages | None = None
    for part, values in found.items():
        labels = np.array(values, dtype=np.int64)
        _check_labels(labels, len(class_names), part, where)
        pools[part] = shards[part].encoded(labels)
    known = pools["train"].labels != UNLABELED
    if not known.all():
        without = pools["train"].select(np.flatnonzero(~known))
        pools["train"] = pools["train"].select(np.flatnonzero(known))
    if without is not None:
        own = pools.get("unlabeled")
        pools["unlabeled"] = without if own is None else without.followed_by(own)
    return Listing(name, str(where), tuple(class_names), pools)


def _text(value: int | str) -> str:
    return "" if value == UNLABELED else str(value)


def _numbered(texts: dict[str, list[str]]) -> tuple[dict[str, Labels], tuple[str, ...]]:
    names = tuple(in_order(text for text in texts["train"] if text))
    numbers = {name: label for label, name in enumerate(names)} | {"": UNLABELED}
    beyond = len(names)
    return {
        part: [numbers.get(text, UNLABELED if part == "unlabeled" else beyond) for text in values]
        for part, values in texts.items()
    }, names


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    import pyarrow.types as types

    names = list(schema.names)
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if image is None or label is None:
        raise DataError(
            f"{file}: needs a column {' or '.join(IMAGE_COLUMNS)} and a column {' or '.join(LABEL_COLUMNS)}; "
            f"it has {', '.join(names)[:500]}"
        )
    if names.count(image) > 1 or names.count(label) > 1:
        raise DataError(f"{file}: has two columns {image!r} or two columns {label!r}")
    content = schema.field(image).type
    if types.is_struct(content):
        index = content.get_field_index("bytes")
        content = content.field(index).type if index >= 0 else content
    if not (types.is_binary(content) or types.is_large_binary(content)):
        raise DataError(
            f"{file}: column {image} must be struct{{bytes, path}}, found {schema.field(image).type}"
        )
    kind = schema.field(label).type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"{file}: column {label} must be integers or texts, found {kind}")
    return image, label


def _check_labels(labels: npt.NDArray[np.int64], classes: int, part: str, where: Path) -> None:
    lowest = UNLABELED if part in ("train", "unlabeled") else 0
    bad = np.flatnonzero((labels < lowest) | (labels >= classes))
    if len(bad):
        raise DataError(
            f"{where}: {part} row {bad[0]} has label {labels[bad[0]]} ({len(bad)} such); "
            f"must be 0 to {classes - 1}" + (", or -1 for unknown" if lowest < 0 else "")
        )
