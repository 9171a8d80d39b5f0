"""One thing that a look at a data set found, and the words of its message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["refused", "warning", "note"]
CALLED = {
    "train": "labelled",
    "unlabeled": "unlabelled",
    "validation": "validation",
    "test": "test",
}
"""How messages call the parts."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: "refused" (training stops at it, or with --skip-bad goes on without these images), "warning" or "note".
        code: names the kind of finding for programs.
        text: what was found.
        cure: what to do.
        images: the images that it is about, each with a detail.
    """

    level: Level
    code: str
    text: str
    cure: str = ""
    images: tuple[tuple[str, str], ...] = ()


def how_many(things: Sequence[object], one: str, many: str = "") -> str:
    """Return how many things there are and what they are, ``"1 image"`` or ``"2 images"``."""
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, quoted, and how many more there are."""
    return ", ".join(map(repr, names[:10])) + (
        f" and {len(names) - 10} more" if len(names) > 10 else ""
    )
