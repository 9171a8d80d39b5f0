"""The parts, classes and labels of a data set, before its images are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daso.data.class_names import listed
from daso.data.images.cache import Cache
from daso.data.images.encoded import EncodedImages
from daso.data.source import OwnLabels, refuse_empty_classes, renumber_used
from daso.errors import check_range
from daso.files import printable

JOURNAL = "daso-labels.jsonl"
"""The file of the labels of ``daso label``, or the end of its name."""
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "__pycache__"),
        "system volume information",
    }
)
"""Folders of storages and archives with small copies or removed files, in small letters."""


@dataclass(frozen=True)
class Reading:
    """Where the files of a data set are, and how encoded images are read; see ``open_source``."""

    size: int | None = None
    largest_side: int | None = None
    skip_bad: bool = False
    cache: Cache | None = None
    data: Path | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    download: bool = False

    def __post_init__(self) -> None:
        if self.size is not None:
            check_range("size", self.size, 1)


@dataclass(frozen=True)
class Listing:
    """A data set of encoded images.

    Attributes:
        name: of the data in run folders.
        where: the file or folder that they come from, for messages.
        pools: by part, of ``PARTS``; ``train`` is always there.
        skipped: (name, reason) of rows and files left out so far.
        class_names, notes, mean, std: see ``Source``.
        published: a benchmark, which is not searched for copies.
        channels: 1 or 3 if all images are decoded to them; None: they decide.
        before: the pools before the journal was applied; None: these.
        own_labels, journal: see ``Source``.
        partial: further labels are to come, from the journal of ``daso label``: classes may be
            without images. The functions that list a data set take their names as ``classes``.
        optional: names of classes that come from a list of names. Those without an image in any
            part are left out, with a note, unless labels are still to come.
        measured: classes of validation and test folders that have no labeled image.
    """

    name: str
    where: str
    class_names: tuple[str, ...]
    pools: Mapping[str, EncodedImages]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    published: bool = False
    channels: int | None = None
    partial: bool = False
    optional: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    before: Mapping[str, EncodedImages] | None = None
    own_labels: OwnLabels | None = None
    journal: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(printable, self.class_names)))
        if not self.partial:
            self._leave_out_unused()
            refuse_empty_classes(self.pools["train"].labels, self.class_names, self.where)

    def _leave_out_unused(self) -> None:
        labels = [pool.labels for pool in self.pools.values()]
        optional = set(map(printable, self.optional))
        numbers, notes = renumber_used(labels, self.class_names, optional)
        if not notes:
            return
        kept = zip(self.class_names, numbers.tolist(), strict=False)
        pools = {
            part: replace(pool, labels=numbers[pool.labels]) for part, pool in self.pools.items()
        }
        changed = {
            "class_names": tuple(name for name, number in kept if number >= 0),
            "pools": pools,
            "notes": (*self.notes, *(f"{self.where}: {note}" for note in notes)),
            "optional": (),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is not read: it is hidden, or a storage's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def unused_note(columns: Iterable[str], where: object) -> tuple[str, ...]:
    """Note the columns of a table that are not read."""
    named = [name for name in columns if name.strip()]
    return (f"{where}: columns that are not used: {listed(named)}",) if named else ()
