"""Tables of encoded images with labels, in parquet or Arrow files, read through pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.class_names import NUMBER_CLASSES, in_order, number_labels, numbered_names
from daso.data.images.encoded import Encoded, EncodedImages, origin_of
from daso.data.listing import Listing
from daso.data.source import PARTS, UNLABELED, check_labels
from daso.errors import DataError, MissingDependencyError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
CHUNK = 512


@dataclass(frozen=True)
class Table:
    """An open file: its schema, and a function that yields the batches of one column."""

    schema: Any
    column: Callable[[str], Iterator[Any]]


Opener = Callable[[Path], AbstractContextManager[Table]]


def import_pyarrow(what: str) -> Any:
    """Import pyarrow; *what* begins the error without it."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(f"{what} need pyarrow: pip install 'daso[parquet]'") from error
    return pyarrow


@contextmanager
def open_parquet(file: Path) -> Iterator[Table]:
    """Open a parquet file; pyarrow's errors become DataError."""
    with _damage_named(file, "parquet"):
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(file) as opened:

            def column(name: str) -> Iterator[Any]:
                for batch in opened.iter_batches(batch_size=CHUNK, columns=[name]):
                    yield batch.column(0)

            yield Table(opened.schema_arrow, column)


@contextmanager
def open_arrow(file: Path) -> Iterator[Table]:
    """Open an Arrow file in the streaming format; pyarrow's errors become DataError."""
    with _damage_named(file, "Arrow"):
        import pyarrow.ipc

        with pyarrow.memory_map(str(file)) as mapped, pyarrow.ipc.open_stream(mapped) as opened:

            def column(name: str) -> Iterator[Any]:
                for batch in opened:
                    # Offsets in a damaged file may point outside it.
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
    # ArrowException covers ordinary damage; damaged metadata raises the others.
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        KeyError,
        MemoryError,
        RecursionError,
    ) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:300]
        raise DataError(f"{file}: not a readable {kind} file: {reason}; fetch it again") from e


class TableFiles:
    """The table files of one part; each pass opens them again and holds few images at a time.

    Args:
        files: at least one; all must have the same columns.
        with_paths: whether rows may hold the path of an image file instead of its bytes.

    Attributes:
        image, label: the names of the columns.
        metadata: of the first file's schema.
        rows: number of rows of each file, after its labels have been read.

    Raises:
        DataError: a file is damaged, lacks the columns, or differs from the first.
    """

    def __init__(self, files: Sequence[Path], opener: Opener, *, with_paths: bool = False) -> None:
        self.files, self.opener, self.with_paths = list(files), opener, with_paths
        self.rows: list[int] = []
        columns = []
        for file in self.files:
            with opener(file) as table:
                columns.append(_find_columns(table.schema, file))
                if len(columns) == 1:
                    self.metadata: dict[bytes, bytes] = table.schema.metadata or {}
            if columns[-1] != columns[0]:
                raise DataError(f"{file}: its columns differ from {self.files[0].name}'s")
        self.image, self.label = columns[0]

    def labels(self) -> list[Any]:
        """Read the labels of all rows: integers or texts, None where missing."""
        labels: list[Any] = []
        self.rows = []
        for file in self.files:
            before = len(labels)
            with self.opener(file) as table:
                for column in table.column(self.label):
                    labels += column.to_pylist()
            self.rows.append(len(labels) - before)
        if not labels:
            raise DataError(f"{self.files[0]}: no rows in it")
        return labels

    def encoded(self, labels: npt.NDArray[np.int64]) -> EncodedImages:
        """Return the images of all rows; ``labels()`` must have been called."""
        origins = partial(map, origin_of, self.files)
        return EncodedImages(labels, self._name_of, self._chunks, False, origins)

    def _chunks(self) -> Iterator[Sequence[Encoded]]:
        for file, rows in zip(self.files, self.rows, strict=True):
            count = 0
            with self.opener(file) as table:
                for column in table.column(self.image):
                    for start in range(0, len(column), CHUNK):
                        chunk = self._contents(column.slice(start, CHUNK))
                        count += len(chunk)
                        yield chunk
            if count != rows:
                raise DataError(f"{file}: {rows} labels, but {count} images; fetch it again")

    def _contents(self, column: Any) -> list[Encoded]:
        import pyarrow.types

        struct = pyarrow.types.is_struct(column.type)
        contents = (column.field("bytes") if struct else column).to_pylist()
        paths = [None] * len(contents)
        if self.with_paths and struct and column.type.get_field_index("path") >= 0:
            paths = column.field("path").to_pylist()
        # A row without bytes is reported like any other unreadable image.
        return [c or (Path(p) if p else b"") for c, p in zip(contents, paths, strict=True)]

    def _name_of(self, index: int) -> str:
        for file, rows in zip(self.files, self.rows, strict=True):
            if index < rows:
                return f"{file}, row {index}"
            index -= rows
        return f"row {index}"


def list_tables(
    tables: Mapping[str, TableFiles],
    class_names: Sequence[str] | None = None,
    *,
    name: str,
    where: Path,
) -> Listing:
    """List the parts of a data set; training images without a label join the unlabeled ones.

    Args:
        tables: by part, of ``PARTS``.
        class_names: for integer labels; None: those in the metadata of the training images; empty:
            the numbers. Text labels are the names.
        name, where: see ``Listing``.

    Raises:
        DataError: a label is out of range, a hold-out lacks one, or a class has no labeled image.
    """
    if class_names is None:
        class_names = _metadata_names(tables["train"])
    values = {part: tables[part].labels() for part in PARTS if part in tables}
    if any(isinstance(label, str) for column in values.values() for label in column):
        texts = {part: [_text(label) for label in column] for part, column in values.items()}
        class_names = tuple(in_order(text for text in texts["train"] if text))
        labels = number_labels(texts, class_names, str(where))
    else:
        numbers = {
            part: [UNLABELED if label is None else label for label in column]
            for part, column in values.items()
        }
        largest = max(map(max, numbers.values()))
        if largest >= (2**31 if class_names else sum(map(len, numbers.values()))):
            raise DataError(f"{where}: the largest label is {largest}; {NUMBER_CLASSES}")
        labels = {part: np.array(of_part, dtype=np.int64) for part, of_part in numbers.items()}
        class_names = class_names or numbered_names(largest + 1, str(where))
    pools: dict[str, EncodedImages] = {}
    for part, of_part in labels.items():
        unknown = part in ("train", "unlabeled")
        check_labels(of_part, len(class_names), f"{where}: {part}", unknown=unknown)
        pools[part] = tables[part].encoded(of_part)
    known = pools["train"].labels != UNLABELED
    if not known.all():
        without = pools["train"].select(np.flatnonzero(~known))
        pools["train"] = pools["train"].select(np.flatnonzero(known))
        own = pools.get("unlabeled")
        pools["unlabeled"] = without if own is None else without.followed_by(own)
    return Listing(name, str(where), tuple(class_names), pools)


def _text(label: int | str | None) -> str:
    return "" if label in (None, UNLABELED) else str(label)


def _metadata_names(table: TableFiles) -> tuple[str, ...]:
    stored = table.metadata.get(b"huggingface")
    if stored is None:
        return ()
    try:
        features = json.loads(stored)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        features = None
    return feature_names(features, table.label, table.files[0])


def feature_names(features: object, label: str, where: Path) -> tuple[str, ...]:
    """Return the class names of a column in the features of a Hugging Face data set."""
    try:
        feature = features[label]  # type: ignore[index]
        names = tuple(str(name) for name in feature.get("names") or ())
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{where}: 'huggingface' metadata lacks column {label}") from error
    if len(set(names)) != len(names):
        raise DataError(f"{where}: 'huggingface' metadata names a class twice: {names[:20]}")
    return names


def _find_columns(schema: Any, file: Path) -> tuple[str, str]:
    import pyarrow.types as types

    names = list(schema.names)
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if image is None or label is None:
        raise DataError(
            f"{file}: needs a column {' or '.join(IMAGE_COLUMNS)} and a column "
            f"{' or '.join(LABEL_COLUMNS)}; it has {', '.join(names)[:500]}"
        )
    if names.count(image) > 1 or names.count(label) > 1:
        raise DataError(f"{file}: has two columns {image!r} or two columns {label!r}")
    content = schema.field(image).type
    if types.is_struct(content) and (index := content.get_field_index("bytes")) >= 0:
        content = content.field(index).type
    if not (types.is_binary(content) or types.is_large_binary(content)):
        kind = schema.field(image).type
        raise DataError(f"{file}: column {image} must be struct{{bytes, path}}, found {kind}")
    kind = schema.field(label).type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"{file}: column {label} must be integers or texts, found {kind}")
    return image, label
