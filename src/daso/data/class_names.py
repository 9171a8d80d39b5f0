"""Class names and labels as text: their order, their numbers, and easily confused names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from daso.data.part_names import FLAG, PART_NAMES, part_meant
from daso.errors import DataError, same_name

INTEGER = re.compile(r"-?[0-9]{1,18}")
WHOLE = re.compile(r"(-?[0-9]{1,18})\.0+")
"""A whole number as tables with gaps store it."""
BLANK_LETTERS = "\u115f\u1160\u2800"
"""Characters that count as letters or symbols but are invisible."""
NUMBER_CLASSES = "number the classes 0, 1, 2 ..."
CONTROLS = ("Cc", "Zl", "Zp")
"""Categories of characters: controls, and ends of lines and paragraphs."""
FORMATS = re.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Invisible characters that no word or emoji needs, unlike the zero-width joiners."""
MISSING = re.compile(r"(-1([.,]0+)?|nan|NaN|NAN|None|null|NULL|<NA>|NaT)?")
"""Texts that stand for a missing label; "NA" and "none" may be classes."""
DOUBTFUL = frozenset(
    (
        "nan", "none", "null", "na", "n/a", "n.a", "nil", "missing", "unlabeled", "unlabelled",
        "unknown",  # daso predict --unsure
        *("", "\\n", "undefined", "unannotated", "untagged", "not labeled", "no label", "no_label"),
        *("not_labeled", "unk", "unidentified", "unsorted", "uncategorized", "tbd", "todo"),
        *("#n/a", "#ref!", "#name?", "#value!", "#div/0!", "#null!", "#num!"),
    )
)  # fmt: skip
"""Class names, in small letters, that may mean a missing label; as may negative numbers."""
NO_PART_NAMES = frozenset({*PART_NAMES["train"].own, "valid"})
"""Names of parts that are names of classes, too: vehicles, and the opposite of invalid."""
FORMULA = re.compile(r"\s*[=+@-]")
"""Beginning of a text that spreadsheets take for a formula."""
BRACKETS = "[](){}'\" "
"""Characters around the names in a list of them."""
NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]*)?(e[+-]?[0-9]{1,2})?")


def is_missing(label: str) -> bool:
    """Whether a text is what programs write in the place of a missing label."""
    return MISSING.fullmatch(label.strip()) is not None


def meant_labels(labels: Iterable[str]) -> dict[str, str]:
    """Return what labels of all parts mean: ``""`` if missing; 3 for 3.0 if all are whole numbers.

    Where "cat" is a label, so is "cat " with a blank, which a spreadsheet does not show.
    """
    texts = {label: "" if is_missing(label) else label for label in labels}
    texts |= {label: label.strip() for label in texts if label.strip() in texts.values()}
    whole = {label: WHOLE.sub(r"\1", text) for label, text in texts.items()}
    if all(INTEGER.fullmatch(text) for text in whole.values() if text):
        texts = whole
    return texts


def refuse_missing(class_names: Iterable[str], where: str) -> None:
    """Refuse a list of class names in which one stands for a missing label."""
    for number, name in enumerate(class_names):
        if is_missing(name):
            raise DataError(
                f"{where}: class {number} is called {name!r}, which reads like a missing label; "
                "rename it, or label its images -1"
            )


def reading_notes(labels: Iterable[str], where: str) -> Iterator[str]:
    """Note which texts were read as others; -1 among whole numbers is the usual one."""
    counts = Counter(labels)
    del counts[""]
    missing = {label: count for label, count in counts.items() if is_missing(label)}
    if missing and not (list(missing) == ["-1"] and all(map(INTEGER.fullmatch, counts))):
        which = ", ".join(f"{count:,} are {label!r}" for label, count in sorted(missing.items()))
        yield f"{where}: of the labels {which}: read as unlabeled"
    for label in sorted(counts.keys() - missing.keys()):
        if label != label.strip() and label.strip() in counts:
            one = f"{counts[label]:,} label{'s' * (counts[label] > 1)} {label!r}"
            yield f"{where}: {one}: read as {label.strip()!r}"


def number_labels(
    texts: Mapping[str, Sequence[str]], class_names: Sequence[str], where: str
) -> dict[str, npt.NDArray[np.int64]]:
    """Turn labels, ``""`` where missing, into indices of class names, int64 (N,), -1 where unknown.

    *texts* has the labels of each part. *where* names the data set in the error.
    """
    numbers = {name: number for number, name in enumerate(class_names)} | {"": -1}
    numbers |= {
        label: numbers[found]
        for label in set().union(*texts.values()) - numbers.keys()
        if (found := same_name(label, class_names)) in numbers
    }
    for part, labels in texts.items():
        unknown = {} if part == "unlabeled" else dict.fromkeys(set(labels) - numbers.keys())
        if unknown:
            index = next(i for i, label in enumerate(labels) if label in unknown)
            raise DataError(
                f"{where}: {part} label {labels[index][:80]!r} (image {index}) is none of the "
                f"{len(class_names)} classes of the labeled images: {listed(class_names)[:300]}; "
                f"classes of the {part} images: {listed(in_order(set(labels) - {''}))[:300]}"
            )
    return {
        part: np.array([numbers.get(label, -1) for label in labels], dtype=np.int64)
        for part, labels in texts.items()
    }


def numbered_names(parts: Sequence[npt.NDArray[np.int64]], where: str) -> tuple[str, ...]:
    """Return the names of classes that are known by number only.

    They are the numbers that occur in any part, by value.
    """
    numbers = np.unique(np.concatenate(parts))
    largest, images = int(numbers.max(initial=-1)), sum(map(len, parts))
    if largest > min(images, 100_000):
        what = f"the largest label is {largest}, with {images:,} images"
        raise DataError(f"{where}: {what}; {NUMBER_CLASSES}")
    return tuple(map(str, numbers[numbers >= 0].tolist()))


def counted_from_zero(
    labels: npt.NDArray[np.int64], numbered: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return indices of the classes in ``numbered_names``; negative labels stay."""
    places = np.searchsorted(np.array(numbered, dtype=np.int64), labels)
    return np.where(labels < 0, labels, places)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort class names: by value if all are whole numbers, else by their characters."""
    distinct = set(names)
    if distinct and all(INTEGER.fullmatch(name) for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def joined(names: Iterable[str], more: Collection[str] | None) -> set[str]:
    """Join further class names, of which some may be known in another Unicode form."""
    known = set(names)
    return known | {same_name(name, known) for name in more or ()}


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, quoted, and the number of others."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more


def alike_names(class_names: Sequence[str]) -> list[list[str]]:
    """Group names that differ only in case, blanks, underscores, Unicode form or as numbers."""
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
    bare = {name.strip(BRACKETS) for name in class_names}
    for name in class_names:
        text = name.strip().casefold()
        if (
            is_missing(name)
            or DOUBTFUL & {text, text.strip("()<>[]{} .?*_-")}
            or part_meant(name) == "unlabeled"
            or (text[:1] == "-" and INTEGER.fullmatch(text))
        ):
            cure = "if it means that the class is unknown, leave the label empty"
            yield "missing-name", f"the class name {name!r} reads like a missing label", cure
        elif text not in NO_PART_NAMES and FLAG.fullmatch(text):
            cure = "if it is one, put its images into the part val or test"
            yield "part-name", f"the class name {name!r} reads like a part of a data set", cure
        elif FORMULA.match(name) and not NUMBER.fullmatch(text):
            cure = "rename it, or let spreadsheets import CSV files as text"
            yield "formula-name", f"the class name {name!a} reads like a formula", cure
        parts = [
            {part.strip(BRACKETS) for part in re.split(separator, name)} - {""}
            for separator in (r"[|;,]", r"[+&/]", r"\s")
        ]
        several = any(len(names) > 1 and names <= bare for names in parts)
        if several or (re.search(r"[|;]|\[.*,", name) and (parts[0] - {name}) & bare):
            text = f"the class name {name!r} joins names of other classes"
            yield "joined-names", text, "each image has one label: choose one, or leave it empty"
    for name in unseen_names(class_names):
        yield "unseen-name", f"the class name {name!a} has no visible character", "rename it"
    for name in class_names:
        if any(unicodedata.category(c) in CONTROLS for c in name):
            text = f"the class name {name!a} has a line break or another control character in it"
            yield "unseen-name", text, "rename it"
        elif FORMATS.search(name) and not unseen_names([name]):
            text = f"the class name {name!a} has an invisible character in it"
            yield "unseen-name", text, "rename it"
    for group in alike_names(class_names):
        which = " and ".join(map(ascii, group))
        text = f"the class names {which} differ only in case, blanks, Unicode form or as numbers"
        yield "alike-names", text, "give them one name if they are one class"


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = "".join(str(unicodedata.decimal(c, c)) for c in folded)  # digits of any script
    # Category Cf: invisible characters, such as the zero-width space.
    letters = (c for c in folded if not c.isspace() and c != "_")
    seen = "".join(c for c in letters if unicodedata.category(c) != "Cf")
    number = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", seen)
    return f"{float(number):.17g}" if NUMBER.fullmatch(number) else seen
