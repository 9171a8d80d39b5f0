"""The parts, classes and labels of a data set, before its images are decoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daso.data.class_names import listed
from daso.data.images.cache import Cache
from daso.data.images.encoded import EncodedImages
from daso.data.source import OwnLabels, refuse_empty_classes
from daso.errors import DataError, check_range, nearest
from daso.files import printable

PART_NAMES = {
    "train": ("train", "labeled", "labelled", "training"),
    "unlabeled": ("unlabeled", "unlabelled", "unsupervised"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The names of each part in folders, manifests and data sets, in any case."""
JOURNAL = "daso-labels.jsonl"
"""The file of the labels of ``daso label``, or the end of its name."""
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "__pycache__"),
        "system volume information",
    }
)
"""Folders of storages and archives with small copies or removed files, in small letters."""
LIKE_PART = {
    "train": re.compile("train[a-z]*|trn?|labell?ed|learn(ing)?|fit|development"),
    "validation": re.compile("val[a-z]*|va|dev[a-z]*"),
    "test": re.compile("(public|private)?test[a-z]*|te|ts|tst|eval[a-z]*|h[eo]ldout"),
    "unlabeled": re.compile("unlabel[a-z]*|unsup[a-z]*"),
}
"""Words, in small letters, for parts of data sets, few of which ``PART_NAMES`` knows."""
SPLIT_COLUMNS = frozenset({"split", "set", "subset", "part", "partition", "phase", "usage"})
"""Names of columns, in small letters, that hold nothing but splits."""
FLAG = re.compile(
    r"(is[ _-]?|(in|for|used?)[ _-])*"
    r"((?P<train>train(ing)?)|test(ing)?|val(id(ation)?)?|dev|eval(uation)?|h[eo]ld[ _-]?out)"
    r"([ _-]?(set|data|split|subset|images?|samples?))?\W*"
)
"""Names of columns, in small letters, such as "is_valid", "test set" and "used_for_training"."""
NO_VALUES = frozenset({"0", "0.0", "false", "f", "no", "n", "none", "nan", ""})
FLAG_VALUES = NO_VALUES | {"1", "1.0", "true", "t", "yes", "y"}
SPLIT_NUMBERS = frozenset({"0", "1", "2", "3", "0.0", "1.0", "2.0", "3.0"})
"""What numbers of splits are called, as in CelebA's lists."""
MOST_SPLITS = 50
"""Different texts of a column that may be one of splits."""


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
    measured: tuple[str, ...] = ()
    before: Mapping[str, EncodedImages] | None = None
    own_labels: OwnLabels | None = None
    journal: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(printable, self.class_names)))
        if not self.partial:
            refuse_empty_classes(self.pools["train"].labels, self.class_names, self.where)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is not read: it is hidden, or a storage's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def part_called(name: str) -> str | None:
    """Return the part that a folder or split name stands for, or None."""
    return next((part for part, names in PART_NAMES.items() if name.strip().lower() in names), None)


def part_meant(text: str) -> str | None:
    """Return the part that a text reads like: "Test Set", "my_test"; None for files."""
    blanks = len(text.split()) - 1
    words = [] if "." in text or blanks > 1 else re.findall("[a-z]+", text.lower())
    for word in (*words[:1], *words[-1:] * (not blanks), "".join(words)):
        for part, like in LIKE_PART.items():
            if like.fullmatch(word):
                return part
    return None


def splits_by_part(
    names: Iterable[str], where: object, *, needs_train: bool = True
) -> tuple[dict[str, str], list[str]]:
    """Return the names of splits or folders by part, and those that stand for no part."""
    splits: dict[str, str] = {}
    others = []
    for name in names:
        part = part_called(name)
        if part is None:
            others.append(name)
        elif part in splits:
            both = f"both {splits[part]!r} and {name!r}, which are the same part"
            raise DataError(f"{where}: has {both}; keep one of them")
        else:
            splits[part] = name
    if needs_train and "train" not in splits:
        there = ", ".join([*splits.values(), *others]) or "nothing"
        raise DataError(f"{where}: no split 'train' in it, only {there}")
    return splits, others


def reads_like_split(name: str, values: Iterable[object]) -> bool:
    """Whether a column has the names of several parts among few different texts.

    Or only texts that read like several parts, such as PublicTest and Training; or the name of one
    part, where the column is called like a split.
    """
    texts: set[str] = set()
    for value in values:
        if isinstance(value, str):
            texts.add(value)
            if len(texts) > MOST_SPLITS:
                return False
    parts = {part_called(text) for text in texts} - {None}
    if len(parts) > 1 or (parts and name.strip().lower() in SPLIT_COLUMNS):
        return True
    meant = {part_meant(text) for text in texts if text.strip()}
    return len(meant) > 1 and None not in meant


def is_flag(name: str, values: Iterable[object]) -> bool:
    """Whether a column says by its name, and yes or no or numbers, which images to measure on."""
    name, allowed = name.strip().lower(), FLAG_VALUES
    flag = FLAG.fullmatch(name)
    if name in SPLIT_COLUMNS:
        allowed = SPLIT_NUMBERS
    elif flag is None:
        return False
    texts: set[str] = set()
    for value in values:
        texts.add(str(value).lower())
        if not texts <= allowed:
            return False
    if allowed is SPLIT_NUMBERS:
        return len(texts) > 1
    return flag is None or flag["train"] is None or not texts.isdisjoint(NO_VALUES)


def unused_note(columns: Iterable[str], where: object) -> tuple[str, ...]:
    """Note the columns of a table that are not read."""
    named = [name for name in columns if name.strip()]
    return (f"{where}: columns that are not used: {listed(named)}",) if named else ()


def unknown_part(name: str) -> str:
    """Return the text of an error about a name that stands for no part."""
    valid = [other for names in PART_NAMES.values() for other in names]
    return f"unknown split {name[:80]!r}; use {', '.join(valid)}.{nearest(name.lower(), valid)}"
