"""Class names and labels as text: their order, their numbers, and easily confused names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from daso.errors import DataError

INTEGER = re.compile(r"-?[0-9]{1,18}")
BLANK_LETTERS = "\u115f\u1160\u2800"
"""Characters that count as letters or symbols but are invisible."""
NUMBER_CLASSES = "number the classes 0, 1, 2 ..."


def without_missing(labels: Iterable[str]) -> list[str]:
    """Return labels with ``""`` for those that mean "unknown": -1 among whole numbers."""
    texts = list(labels)
    if not all(INTEGER.fullmatch(text) for text in texts if text):
        return texts
    return ["" if text == "-1" else text for text in texts]


def number_labels(
    texts: Mapping[str, Sequence[str]], class_names: Sequence[str], where: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Turn labels, ``""`` where missing, into indices of class names, int64 (N,), -1 where unknown.

    *texts* has the labels of each part. *where* names the data set in the error.
    """
    numbers = {name: number for number, name in enumerate(class_names)} | {"": -1}
    for part, labels in texts.items():
        unknown = {} if part == "unlabeled" else dict.fromkeys(set(labels) - numbers.keys())
        if unknown:
            index = next(i for i, label in enumerate(labels) if label in unknown)
            raise DataError(
                f"{where}: {part} label {labels[index][:80]!r} (image {index}) is none of the "
                f"{len(class_names)} classes: {', '.join(class_names)[:300]}"
            )
    return {
        part: np.array([numbers.get(label, -1) for label in labels], dtype=np.int64)
        for part, labels in texts.items()
    }


def numbered_names(count: int, where: str) -> tuple[str, ...]:
    """Return the names "0" to "K - 1" of classes that are known by number only."""
    if count > 100_000:
        raise DataError(f"{where}: the largest label is {count - 1}; {NUMBER_CLASSES}")
    return tuple(map(str, range(count)))


def in_order(names: Iterable[str]) -> list[str]:
    """Sort class names: by value if all are whole numbers, else by their characters."""
    distinct = set(names)
    if distinct and all(INTEGER.fullmatch(name) for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, quoted, and the number of others."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more


def alike_names(class_names: Sequence[str]) -> list[list[str]]:
    """Group names that differ only in case, blanks, underscores, zeros or Unicode form."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(_key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def unseen_names(class_names: Sequence[str]) -> list[str]:
    """Return the names in which no character is visible."""

    def visible(character: str) -> bool:
        # Category C: controls and invisible characters, such as the zero-width space.
        hidden = character.isspace() or character in BLANK_LETTERS
        return not hidden and unicodedata.category(character)[0] != "C"

    return [n for n in class_names if not any(map(visible, unicodedata.normalize("NFKC", n)))]


def name_faults(class_names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield code, text and cure for class names that are easily confused or invisible."""
    for name in unseen_names(class_names):
        yield "unseen-name", f"the class name {name!a} has no visible character", "rename it"
    for group in alike_names(class_names):
        which = " and ".join(map(ascii, group))
        text = f"the class names {which} differ only in case, blanks or Unicode form"
        yield "alike-names", text, "give them one name if they are one class"


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    # Category Cf: invisible characters, such as the zero-width space.
    letters = (c for c in folded if not c.isspace() and c != "_")
    seen = "".join(c for c in letters if unicodedata.category(c) != "Cf")
    return str(int(seen)) if INTEGER.fullmatch(seen) else seen
