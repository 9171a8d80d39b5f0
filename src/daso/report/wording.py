"""How reports and the terminal word numbers."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

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


def chosen_readout(readout: Mapping[str, Any]) -> str:
    """Return what a readout chose by the labels, and why; ``""`` if nothing was chosen.

    Args:
        readout: of the first evaluation's row; other rows say less.
    """
    names = ("gain", "gain_error", "unlabeled_weight", "mirrorings")
    gain, error, weight, mirrorings = (_number(readout.get(name)) for name in names)
    if gain is None or error is None:
        return ""
    lower = "lower" if gain >= 0 else "raise"
    change = f"{lower} the balanced log-loss by {abs(gain):.2f} ± {error:.2f}"
    if weight is not None:
        text = f"Unlabeled images weigh {weight:g} times the labels in the mixture: they {change}"
    elif error > 0:
        text = f"Unlabeled images are left out of the mixture: they would {change}"
    else:
        text = "The readout is fitted to the labels alone"
    text += ", by cross-validation on the labels." if error > 0 else "."
    if mirrorings:
        mirrored = "the mirror image" if mirrorings == 1 else f"{mirrorings:.0f} mirror images"
        text += f" Features are averaged with those of {mirrored}."
    if isinstance(patches := readout.get("patches"), bool):
        text += f" Patches are {'joined' if patches else 'not joined'} with the embeddings."
    return text


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


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
