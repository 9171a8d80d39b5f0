"""Class names: in what order they stand, and which of them look like slips of one another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

INTEGER = re.compile(r"-?[0-9]{1,18}")
BLANK_LETTERS = "\u115f\u1160\u2800"
"""Characters that count as letters or symbols, and show nothing."""


def in_order(names: Iterable[str]) -> list[str]:
    """Sort class names: numbers by their value where all are whole numbers, else by their characters."""
    distinct = set(names)
    if distinct and all(INTEGER.fullmatch(name) for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def alike_names(class_names: Sequence[str]) -> list[list[str]]:
    """Return groups of names that differ in case, blanks, underscores, leading zeros or Unicode form alone."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(_key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def unseen_names(class_names: Sequence[str]) -> list[str]:
    """Return the names in which nothing is seen: of blanks, controls and characters without width alone."""

    def shows(character: str) -> bool:
        # Category C: controls and characters that are not seen, such as the zero-width space.
        hidden = (
            character.isspace()
            or character in BLANK_LETTERS
            or unicodedata.category(character)[0] == "C"
        )
        return not hidden

    return [
        name for name in class_names if not any(map(shows, unicodedata.normalize("NFKC", name)))
    ]


def confusable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each group of ``alike_names``, and for each name of which nothing is seen."""
    unseen = tuple(
        f"the class name {name!a} shows no character: give it one that can be read"
        for name in unseen_names(class_names)
    )
    return unseen + tuple(
        f"the class names {' and '.join(map(ascii, group))} differ in case, blanks or spelling of the same "
        "characters alone: if they mean one class, give them one name"
        for group in alike_names(class_names)
    )


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    # Category Cf: characters that are not seen, such as the zero-width space.
    seen = "".join(
        c for c in folded if not c.isspace() and c != "_" and unicodedata.category(c) != "Cf"
    )
    return str(int(seen)) if INTEGER.fullmatch(seen) else seen
