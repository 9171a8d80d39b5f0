"""Parquet files in the layout of the Hugging Face hub: encoded images with integer labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.pool import EncodedImages, decode_pools
from daso.data.source import UNLABELED, Images, Source
from daso.errors import DataError, MissingDependencyError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
SUBFOLDERS = (".", "data", "plain_text")
CHUNK = 512


def locate_parquet(folder: Path) -> Path:
    """Return *folder*, or ``data`` or ``plain_text`` in it, whichever holds ``train-*.parquet``.

    Raises:
        DataError: none does.
    """
    for name in SUBFOLDERS:
        if _files(folder / name, "train"):
            return folder / name
    raise DataError(f"{folder}: missing train-*.parquet" if folder.is_dir() else f"{folder}: no such folder")


def read_parquet(
    folder: Path,
    *,
    name: str | None = None,
    size: int | None = None,
    skip_bad: bool = False,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Source:
    """Read ``train-*.parquet`` and, where there are any, ``validation-*.parquet`` and ``test-*.parquet``.

    Column ``img`` or ``image`` holds struct{bytes, path}, column ``label`` or ``fine_label`` integers; class
    names come from the schema's ``huggingface`` metadata, else they are the numbers. Training images without
    a label (null or -1) join the unlabelled pool.

    Args:
        folder: the files' folder, or the parent of a ``data`` or ``plain_text`` folder with the files.
        name: how run folders call the data; None: the folder's name.
        size: side of the square that every image is resized to; None: see ``pool.choose_layout``.
        skip_bad: leave unreadable images out and record them in ``Source.skipped``.
        mean, std: the published normalisation, if there is one.

    Raises:
        DataError: files, columns or labels are missing or wrong, or images could not be read.
        MissingDependencyError: pyarrow is not installed.
    """
    _import_parquet()
    place = locate_parquet(folder)
    opened = {part: _Shards(place, part) for part in ("train", "validation", "test") if _files(place, part)}
    pools = {part: shards.encoded() for part, shards in opened.items()}
    class_names = opened["train"].class_names
    if not class_names:
        largest = max(int(pool.labels.max()) for pool in pools.values())
        class_names = tuple(str(label) for label in range(largest + 1))
    for part, pool in pools.items():
        _check_labels(pool.labels, len(class_names), part, place)
    images, skipped = decode_pools(pools, where=str(place), size=size, skip_bad=skip_bad)
    known = images["train"].labels != UNLABELED
    train = images["train"]
    empty = np.flatnonzero(np.bincount(train.labels[known], minlength=len(class_names)) == 0)
    if len(empty):
        raise DataError(f"{place}: no training image of class {', '.join(class_names[i] for i in empty)}")
    return Source(
        name=name or folder.resolve().name,
        class_names=class_names,
        train=train if known.all() else Images(train.images[known], train.labels[known]),
        unlabeled=None if known.all() else Images(train.images[~known], train.labels[~known]),
        validation=images.get("validation"),
        test=images.get("test"),
        mean=mean,
        std=std,
        skipped=skipped,
    )


class _Shards:
    """The files of one part, opened again for every pass so that a pass holds a few images at a time."""

    def __init__(self, folder: Path, part: str) -> None:
        self.files = _files(folder, part)
        self.rows: list[int] = []
        _refuse_missing_shards(self.files)
        for number, file in enumerate(self.files):
            with _reading(file) as parquet:
                schema = parquet.schema_arrow
                image, label = _columns(schema, file)
                if number == 0:
                    self.image, self.label = image, label
                    self.class_names = _class_names(schema.metadata, label, file)
                elif (image, label) != (self.image, self.label):
                    raise DataError(f"{file}: its columns differ from {self.files[0].name}'s")
                self.rows.append(parquet.metadata.num_rows)

    def encoded(self) -> EncodedImages:
        """Read the labels now; the images at each pass."""
        labels = [column for batch in self._batches(self.label) for column in [_label_array(batch)]]
        if not labels or not sum(map(len, labels)):
            raise DataError(f"{self.files[0]}: no rows in it")
        return EncodedImages(np.concatenate(labels), self._name_of, self._image_chunks, from_files=False)

    def _batches(self, column: str) -> Iterator[Any]:
        for file in self.files:
            with _reading(file) as parquet:
                for batch in parquet.iter_batches(batch_size=CHUNK, columns=[column]):
                    yield batch.column(0)

    def _image_chunks(self) -> Iterator[Sequence[bytes]]:
        import pyarrow

        for column in self._batches(self.image):
            content = column.field("bytes") if pyarrow.types.is_struct(column.type) else column
            # No bytes decode to "not a readable image": named like any other bad row.
            yield [value or b"" for value in content.to_pylist()]

    def _name_of(self, index: int) -> str:
        for file, rows in zip(self.files, self.rows, strict=True):
            if index < rows:
                return f"{file.name}, row {index}"
            index -= rows
        return f"row {index}"


class _reading:  # noqa: N801 - used as a with statement, like open()
    """Open a parquet file; pyarrow's errors come out as DataError."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Any:
        import pyarrow

        try:
            self.parquet = _import_parquet().ParquetFile(self.file)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.file}: not a readable parquet file: {error}") from error
        return self.parquet

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        import pyarrow

        self.parquet.close()
        if isinstance(error, pyarrow.ArrowException | OSError) and not isinstance(error, DataError):
            raise DataError(f"{self.file}: cannot be read: {error}; fetch it again") from error


def _import_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("parquet files need pyarrow: pip install 'daso[parquet]'") from error
    return pyarrow.parquet


def _files(folder: Path, part: str) -> list[Path]:
    return sorted({*folder.glob(f"{part}-*.parquet"), *folder.glob(f"{part}.parquet")})


def _refuse_missing_shards(files: Sequence[Path]) -> None:
    counts = [re.search(r"-of-(\d+)", file.stem) for file in files]
    promised = max((int(found[1]) for found in counts if found), default=len(files))
    if promised != len(files):
        raise DataError(
            f"{files[0].parent}: {len(files)} of {promised} files like {files[0].name}; fetch them all"
        )


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    import pyarrow.types as types

    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        raise DataError(
            f"{file}: needs a column {' or '.join(IMAGE_COLUMNS)} and a column {' or '.join(LABEL_COLUMNS)}; "
            f"it has {', '.join(schema.names)}"
        )
    content = schema.field(image).type
    if types.is_struct(content):
        index = content.get_field_index("bytes")
        content = content.field(index).type if index >= 0 else content
    if not (types.is_binary(content) or types.is_large_binary(content)):
        raise DataError(
            f"{file}: column {image} must be struct{{bytes, path}}, found {schema.field(image).type}"
        )
    if not types.is_integer(schema.field(label).type):
        raise DataError(f"{file}: column {label} must be integers, found {schema.field(label).type}")
    return image, label


def _class_names(metadata: dict[bytes, bytes] | None, label: str, file: Path) -> tuple[str, ...]:
    stored = (metadata or {}).get(b"huggingface")
    if stored is None:
        return ()
    try:
        feature = json.loads(stored)["info"]["features"][label]
        names = tuple(str(name) for name in feature.get("names", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: its 'huggingface' metadata does not describe column {label}") from error
    if len(set(names)) != len(names):
        raise DataError(f"{file}: its 'huggingface' metadata names a class twice: {list(names)}")
    return names


def _label_array(column: Any) -> npt.NDArray[np.int64]:
    values = column.fill_null(UNLABELED).to_numpy(zero_copy_only=False)
    return np.asarray(values).astype(np.int64)


def _check_labels(labels: npt.NDArray[np.int64], classes: int, part: str, place: Path) -> None:
    lowest = UNLABELED if part == "train" else 0
    bad = np.flatnonzero((labels < lowest) | (labels >= classes))
    if len(bad):
        raise DataError(
            f"{place}: {part} row {bad[0]} has label {labels[bad[0]]} ({len(bad)} such); "
            f"must be 0 to {classes - 1}" + (", or -1 for unknown" if part == "train" else "")
        )
