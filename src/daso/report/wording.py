"""How reports and the terminal word numbers."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from daso.files import printable

POOLS = {"test": "test", "holdout": "held-out"}
"""Names of the images that a run is measured on."""


def method_label(method: str) -> str:
    """Return a method's name with custom parts by their files' names instead of their paths."""
    return "+".join(part.rpartition("/")[2] for part in method.split("+"))


def markdown(text: object) -> str:
    """Escape text for Markdown."""
    plain = printable(str(text)).replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    # Some sites draw formulas between dollar signs, even behind backslashes.
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in plain).replace("$", "&#36;")


def shortened(name: str, most: int = 14) -> str:
    """Return a class name of at most *most* characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def isolated(name: str) -> str:
    """Return a name for a sentence, whose order letters from right to left must not change."""
    right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    first, last = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
    return f"{first}{name}{last}" if right_to_left else name


def of_classes(recall: Iterable[float | None]) -> str:
    """Return `` (2 of 3 classes)``, what a mean recall is of, or ``""`` if it is of all."""
    measured = [one is not None and math.isfinite(one) for one in recall]
    return "" if all(measured) else f" ({sum(measured)} of {len(measured)} classes)"


def percent(value: float | None, missing: str = "-") -> str:
    """Return a share in percent with one decimal; *missing* for None, NaN and infinity."""
    return missing if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours; ``?`` if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
