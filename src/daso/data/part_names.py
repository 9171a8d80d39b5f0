"""What the parts of a data set are called: in folders, splits, and columns of tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from daso.errors import DataError, nearest


class Names(NamedTuple):
    """Words for a part, in small letters: its *own*, and a pattern of all that mean the *same*."""

    own: tuple[str, ...]
    same: str


PART_NAMES = {
    "train": Names(
        ("train", "labeled", "labelled", "training"),
        "train[a-z]*|trn?|labell?ed|learn(ing)?|fit|development",
    ),
    "validation": Names(("val", "valid", "validation", "dev"), "val[a-z]*|va|dev[a-z]*"),
    "test": Names(
        ("test", "testing"), "(public|private)?test[a-z]*|te|ts|tst|eval[a-z]*|h[eo]ldout"
    ),
    "unlabeled": Names(("unlabeled", "unlabelled", "unsupervised"), "unlabel[a-z]*|unsup[a-z]*"),
}
"""A folder or split with an own name is the part. One with a name that means the same is not read,
nor taken for a class."""
SPLIT_COLUMNS = frozenset({"split", "set", "subset", "part", "partition", "phase", "usage"})
"""Names of columns, in small letters, that hold nothing but splits."""
MEASURED = (
    *PART_NAMES["validation"].own,
    *PART_NAMES["test"].own,
    "eval(uation)?|h[eo]ld[ _-]?out",
)
FLAG = re.compile(
    r"(is[ _-]?|(in|for|used?)[ _-])*"
    rf"((?P<train>train(ing)?)|{'|'.join(MEASURED)})"
    r"([ _-]?(set|data|split|subset|images?|samples?))?\W*"
)
"""Names of columns, in small letters, such as "is_valid", "test set" and "used_for_training"."""
NO_VALUES = frozenset({"0", "0.0", "false", "f", "no", "n", "none", "nan", ""})
FLAG_VALUES = NO_VALUES | {"1", "1.0", "true", "t", "yes", "y"}
NO_PART = NO_VALUES | {"na", "n/a", "null", "-", "?", "exclude", "excluded", "ignore", "unused"}
"""What stands in a column of splits, in small letters, beside an image of no part."""
SPLIT_NUMBERS = frozenset({"0", "1", "2", "3", "0.0", "1.0", "2.0", "3.0"})
"""What numbers of splits are called, as in CelebA's lists."""
MOST_SPLITS = 50
"""Different texts of a column that may be one of splits."""


def part_called(name: str) -> str | None:
    """Return the part that a folder or split name stands for, or None."""
    return next(
        (part for part, names in PART_NAMES.items() if name.strip().lower() in names.own), None
    )


def part_meant(text: str) -> str | None:
    """Return the part that a text reads like: "Test Set", "my_test"; None for files."""
    blanks = len(text.split()) - 1
    words = [] if "." in text or blanks > 1 else re.findall("[a-z]+", text.lower())
    for word in (*words[:1], *words[-1:] * (not blanks), "".join(words)):
        for part, names in PART_NAMES.items():
            if re.fullmatch(names.same, word):
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

    Or names of one part, and gaps; or only texts that read like several parts, such as PublicTest
    and Training. Where the column is called like a split, one part suffices.
    """
    texts: set[str] = set()
    gaps = False
    for value in values:
        if not isinstance(value, str) or value.strip().lower() in NO_PART:
            gaps = True
            continue
        texts.add(value)
        if len(texts) > MOST_SPLITS:
            return False
    parts, meant = set(map(part_called, texts)), set(map(part_meant, texts))
    few = 0 if name.strip().lower() in SPLIT_COLUMNS else 1
    if len(parts - {None}) > few or (gaps and parts and None not in parts):
        return True
    return len(meant) > few and None not in meant


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


def unknown_part(name: str) -> str:
    """Return the text of an error about a name that stands for no part."""
    valid = [other for names in PART_NAMES.values() for other in names.own]
    return f"unknown split {name[:80]!r}; use {', '.join(valid)}.{nearest(name.lower(), valid)}"
