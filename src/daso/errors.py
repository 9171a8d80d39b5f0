"""The errors that daso raises for its users: each says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

NAMED = 20
"""Problems that an error names; it counts the others."""


class DasoError(Exception):
    """Base of every error that a user can mend; the command line prints it without a traceback."""


class DataError(DasoError, ValueError):
    """Something in the data is wrong or missing: a file, an image, a label, a class, a split."""


class OptionError(DasoError, ValueError):
    """An option, a method or a configuration key is unknown, out of range, or does not fit the others."""


class RunError(DasoError, RuntimeError):
    """A run folder or a checkpoint is missing, damaged, in use, or of another configuration."""


class InUseError(RunError):
    """Another process works in a run folder at this moment."""


class DivergedError(RunError):
    """A loss or a weight became infinite or NaN.

    Attributes:
        step: in which, counted from 1.
        term: the loss, or the weights after the step's update.
    """

    def __init__(self, message: str, step: int, term: str) -> None:
        super().__init__(message)
        self.step, self.term = step, term


class MissingDependencyError(DasoError, ImportError):
    """An optional package is needed for what was asked; the message names the extra that brings it."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the valid name nearest to *name*, whatever its case, or ``""`` if none is."""
    lower = {one.lower(): one for one in valid}
    matches = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f" Did you mean {lower[matches[0]]!r}?" if matches else ""


def problems(found: Sequence[tuple[str, str]], what: str, cure: str, *, between: str = ": ") -> str:
    """Return the text of an error about many things: the first 20 by name with the reason, and a count."""
    lines = [f"  {name}{between}{reason}" for name, reason in found[:NAMED]]
    if len(found) > NAMED:
        lines.append(f"  and {len(found) - NAMED} more")
    return "\n".join([f"{what}:", *lines, cure])
