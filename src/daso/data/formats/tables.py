"""Tables of encoded images with labels, in parquet or Arrow files."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.class_names import (
    NUMBER_CLASSES,
    counted_from_zero,
    in_order,
    joined,
    meant_labels,
    number_labels,
    numbered_names,
    reading_notes,
)
from daso.data.formats.arrow import CHUNK, Opener
from daso.data.formats.table_columns import (
    feature_names,
    find_columns,
    label_of,
    metadata_names,
    split_columns,
)
from daso.data.images.encoded import EncodedImages, Item, origin_of
from daso.data.listing import Listing, unused_note
from daso.data.source import PARTS, UNLABELED, check_labels
from daso.errors import DataError

KEPT = 4
"""Batches that are kept for images that are read one by one."""


class TableFiles:
    """The table files of one part; each pass opens them again and holds few images at a time.

    Args:
        files: at least one; all must have the same columns.
        with_paths: whether rows may hold the path of an image file instead of its bytes.
        origin: returns a text that changes when a file does.
        features: description of the columns, and its file; None: each file's own metadata.
        labeled: whether there must be a column of labels.

    Attributes:
        image, label: the names of the columns; no label: "".
        names: for each file, the names of its integer labels; empty without names.
        unused: names of the other columns.
        borrowed: whether integer labels got the names of another part.
        rows: number of rows of each file, after its labels have been read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        opener: Opener,
        *,
        with_paths: bool = False,
        origin: Callable[[Path], str] = origin_of,
        features: tuple[object, Path] | None = None,
        labeled: bool = True,
    ) -> None:
        self.files, self.opener, self.with_paths = list(files), opener, with_paths
        self.origin = origin
        self.rows: list[int] = []
        self.borrowed = False
        self.names: list[tuple[str, ...]] = []
        columns = []
        for file in self.files:
            with opener(file) as table:
                columns.append(find_columns(table.schema, file, labeled=labeled))
                if columns[-1] != columns[0]:
                    raise DataError(f"{file}: its columns differ from {self.files[0].name}'s")
                self.image, self.label = columns[0]
                if not self.label:
                    self.names.append(())
                elif features is None:
                    metadata = table.schema.metadata or {}
                    self.names.append(metadata_names(metadata, self.label, file))
                else:
                    self.names.append(feature_names(features[0], self.label, features[1]))
                self.unused = [name for name in table.schema.names if name not in columns[0]]
                if splits := split_columns(table, self.unused):
                    raise DataError(
                        f"{file}: the column {splits[0]!r} reads like a split; write each split to "
                        "files of its own, or remove the column"
                    )

    def labels(self, names: Sequence[str] = ()) -> list[Any]:
        """Read the labels of all rows: integers or texts, None where missing.

        Integers become the names that their file gives them; *names* serves a file without any.
        """
        labels: list[Any] = []
        self.rows = []
        for file, own in zip(self.files, self.names, strict=True):
            before = len(labels)
            with self.opener(file) as table:
                for column in table.column(self.label or self.image):
                    values = column.to_pylist() if self.label else [None] * len(column)
                    first = len(labels) - before
                    labels += [label_of(v, f"{file}, row {n}") for n, v in enumerate(values, first)]
            self.rows.append(len(labels) - before)
            if named := own or names:
                self.borrowed |= not own and any(isinstance(one, int) for one in labels[before:])
                for row in range(before, len(labels)):
                    labels[row] = _named(labels[row], named, f"{file}, row {row - before}")
        if not labels:
            raise DataError(f"{self.files[0]}: no rows in it")
        return labels

    def encoded(self, labels: npt.NDArray[np.int64]) -> EncodedImages:
        """Return the images of all rows; ``labels()`` must have been called."""
        kept: deque[tuple[int, int, Any]] = deque(maxlen=KEPT)

        def item(file: int, row: int) -> Item:
            for of, first, column in list(kept):
                if of == file and first <= row < first + len(column):
                    break
            else:
                with self.opener(self.files[file]) as table:
                    first, column = table.batch_with(self.image, row)
                kept.append((file, first, column))
            return self._contents(column.slice(row - first, 1))[0]

        return EncodedImages.in_files(
            labels, self.files, self.rows, self._chunks, self._name, item, self._origin
        )

    def _origin(self, file: Path) -> str:
        texts = [self.origin(file)]
        if self.with_paths:
            with self.opener(file) as table:
                for column in table.column(self.image):
                    if column.field("bytes").null_count:
                        items = self._contents(column)
                        texts += [origin_of(item) for item in items if isinstance(item, Path)]
        return "\n".join(texts)

    def _chunks(self, file: Path) -> Iterator[Sequence[Item]]:
        with self.opener(file) as table:
            for column in table.column(self.image):
                for start in range(0, len(column), CHUNK):
                    yield self._contents(column.slice(start, CHUNK))

    def _contents(self, column: Any) -> list[Item]:
        import pyarrow.types

        struct = pyarrow.types.is_struct(column.type)
        contents = (column.field("bytes") if struct else column).to_pylist()
        paths = [None] * len(contents)
        if struct and column.type.get_field_index("path") >= 0:
            paths = column.field("path").to_pylist()
        return [
            self._without_bytes(path) if content is None else content
            for content, path in zip(contents, paths, strict=True)
        ]

    def _without_bytes(self, path: str | None) -> Item:
        if path is None or self.with_paths:
            return Path(path) if path else DataError("the row has no image")
        return DataError(
            f"only the path of the image, {path[:200]!r}, is in the file; embed the images, as "
            "Dataset.save_to_disk of datasets does"
        )

    def _name(self, file: int, row: int) -> str:
        return f"{self.files[file]}, row {row}"


def list_tables(
    tables: Mapping[str, TableFiles],
    *,
    name: str,
    where: Path,
    classes: Collection[str] | None = None,
) -> Listing:
    """List the parts of a data set; training images without a label join the unlabeled ones.

    The classes are those that the files of the training images name, in this order, or their
    texts, or numbers. Labels of other parts are found among them by name.

    Args:
        tables: by part, of ``PARTS``.
        name, where: see ``Listing``.
        classes: see ``Listing.partial``.
    """
    class_names = tuple(dict.fromkeys(itertools.chain(*tables["train"].names)))
    named: tuple[str, ...] = ()
    values = {part: tables[part].labels(class_names) for part in PARTS if part in tables}
    notes = tuple(
        f"{where}: the {part} labels are numbers without names; they are read as those of train"
        for part, table in tables.items()
        if table.borrowed
    )
    if any(isinstance(label, str) for column in values.values() for label in column):
        raw = {
            part: ["" if label is None else str(label) for label in column]
            for part, column in values.items()
        }
        notes += (*reading_notes(itertools.chain(*raw.values()), str(where)),)
        meant = meant_labels(itertools.chain(*raw.values(), class_names))
        texts = {part: [meant[label] for label in column] for part, column in raw.items()}
        class_names = tuple(dict.fromkeys(meant[name] for name in class_names if meant[name]))
        named = class_names
        others = in_order(joined([*texts["train"], *class_names], classes) - {"", *class_names})
        class_names = (*class_names, *others)
        labels = number_labels(texts, class_names, str(where))
    else:
        numbers = {
            part: [UNLABELED if label is None else label for label in column]
            for part, column in values.items()
        }
        largest = max(map(max, numbers.values()))
        if largest > 2**31:
            raise DataError(f"{where}: the largest label is {largest}; {NUMBER_CLASSES}")
        labels = {part: np.array(of_part, dtype=np.int64) for part, of_part in numbers.items()}
        class_names = numbered_names(list(labels.values()), str(where))
        labels = {part: counted_from_zero(of_part, class_names) for part, of_part in labels.items()}
    pools: dict[str, EncodedImages] = {}
    for part, of_part in labels.items():
        pools[part] = tables[part].encoded(of_part)
        missing = np.flatnonzero(of_part == UNLABELED)
        if part in ("validation", "test") and len(missing):
            place = pools[part].name_of(int(missing[0]))
            raise DataError(f"{place}: {part} image without a label; label or remove it")
        check_labels(of_part, len(class_names), f"{where}: {part}", unknown=True)
    known = pools["train"].labels != UNLABELED
    if not known.all():
        without = pools["train"].select(np.flatnonzero(~known))
        pools["train"] = pools["train"].select(np.flatnonzero(known))
        own = pools.get("unlabeled")
        pools["unlabeled"] = without if own is None else without.followed_by(own)
    unused = dict.fromkeys(itertools.chain(*(table.unused for table in tables.values())))
    notes += unused_note(unused, where)
    partial = classes is not None
    return Listing(
        name, str(where), class_names, pools, notes=notes, optional=named, partial=partial
    )


def _named(label: Any, names: Sequence[str], place: str) -> str | None:
    if label is None or isinstance(label, str):
        return label
    if UNLABELED <= label < len(names):
        return None if label == UNLABELED else names[label]
    raise DataError(
        f"{place}: label {label} is out of range; the {len(names)} classes have the numbers 0 to "
        f"{len(names) - 1}, and -1 is unknown"
    )
