"""The errors that daso raises for its users: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import errno
import importlib
import json
import math
import os
import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

REFUSALS = {
    errno.EACCES: "grant access to it and to the folders that it is in (chmod u+rwX)",
    errno.EPERM: "grant access to it",
    errno.ENAMETOOLONG: "shorten the name",
    errno.ELOOP: "correct the symbolic link",
    errno.EIO: "check the disk",
    errno.ESTALE: "connect the network drive again",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
}
"""What to do if the operating system refuses a path; any other error of it is a fault of daso."""

Number = TypeVar("Number", int, float)
Choice = TypeVar("Choice", bound=str)


class DasoError(Exception):
    """Base of all errors that a user can fix; the command line prints them without a traceback."""


class DataError(DasoError, ValueError):
    """A file, an image, a label, a class or a split is wrong or missing."""


class OptionError(DasoError, ValueError):
    """An option, method or configuration key is unknown, out of range or in conflict."""


class RunError(DasoError, RuntimeError):
    """A run folder or a checkpoint is missing, damaged, in use, or of another configuration."""


class InUseError(RunError):
    """Another process is using a run folder."""


class DivergedError(RunError):
    """A loss or a weight became infinite or NaN.

    Attributes:
        step: step of the fault, counted from 1.
        term: name of the loss, or of the broken weights.
    """

    def __init__(self, message: str, step: int, term: str) -> None:
        super().__init__(message)
        self.step, self.term = step, term


class MissingDependencyError(DasoError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""


def import_extra(module: str, extra: str, needs: str) -> Any:
    """Import a module of a package that *extra* of daso installs.

    Raises:
        MissingDependencyError: it is not installed, or broken; *needs*, such as "daso label needs",
            begins the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        why = "" if error.name == package else f" ({first_line(error)})"
        text = f"{needs} {package}: pip install 'daso[{extra}]'{why}"
        raise MissingDependencyError(text) from error


@dataclass(frozen=True)
class Range:
    """Marks a type, in ``Annotated``, whose numbers lie in an interval, closed but for some ends.

    Infinity never belongs to it.

    Attributes:
        above, below: exclude the low or the high end.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        low = self.low < value if self.above else self.low <= value
        high = value < self.high if self.below or self.high == math.inf else value <= self.high
        return low and high

    def __str__(self) -> str:
        if math.isfinite(self.high) and not (self.above or self.below):
            return f"from {self.low:g} to {self.high:.10g}"
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.below else 'at most'} {self.high:.10g}"

    def check(self, name: str, value: float) -> None:
        """Raise an ``OptionError`` unless an option lies in the range."""
        if value not in self:
            text = "a finite number" if value == math.inf == self.high else str(self)
            raise OptionError(f"{name} = {value} is out of range ({flag(name)}): it must be {text}")


def check_range(
    name: str,
    value: Number,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float | None = None,
) -> Number:
    """Return a finite value in [least, most], or (above, most]; refuse any other."""
    Range(least if above is None else above, most, above is not None).check(name, value)
    return value


def check_choice(name: str, value: Choice, choices: Collection[str]) -> Choice:
    """Return an option that is one of its choices; refuse any other, and name the nearest one."""
    if value not in choices:
        choose = f"choose from {', '.join(choices)}.{nearest(str(value), choices)}"
        raise OptionError(f"{name} = {value!r} ({flag(name)}): invalid choice; {choose}")
    return value


def flag(name: str, value: Any = True) -> str:
    """Return an option as the command line has it: ``--no-name`` if *value* is False."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def named(name: str) -> str:
    """Return an option for a message that the command line and Python share."""
    return f"{name} ({flag(name)})"


def named_key(key: str) -> str:
    """Return a key of ``config.json``, such as "train.batch", as the option that decides it."""
    name = key.rpartition(".")[2]
    return name if key == "source" else flag(name)


def typed(path: Path | str) -> str:
    """Return a path as one types it into a shell, behind a command that a message advises.

    Double quotes are preferred: most messages have the command in single ones.
    """
    text = f"./{path}" if str(path).startswith("-") else str(path)
    quoted = shlex.quote(text)
    return quoted if quoted == text or re.search(r'["$`\\!]', text) else f'"{text}"'


def how_many(count: float, one: str, many: str = "") -> str:
    """Return a count with its noun, ``"1 image"`` or ``"2 images"``."""
    return f"{count:,.0f} {one if count == 1 else many or one + 's'}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest valid name, ignoring case, or ``""``."""
    lower = {one.lower(): one for one in valid}
    matches = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    if not matches:
        return ""
    match = lower[matches[0]]
    looks_alike = unicodedata.normalize("NFKC", match) == unicodedata.normalize("NFKC", name)
    shown = f"{match!a}, which looks like it" if looks_alike else repr(match)
    return f" Did you mean {shown}?"


def same_name(name: str, valid: Collection[str]) -> str:
    """Return the valid name that is *name* in another Unicode form, as files may have it.

    An exact match comes first; *name* itself is returned if there is none.
    """
    if name in valid or name.isascii():
        return name
    form = unicodedata.normalize("NFC", name)
    return next((one for one in valid if unicodedata.normalize("NFC", one) == form), name)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def refusal(error: OSError) -> str:
    """Return which path the operating system refuses and what to do; "" for a fault of daso."""
    if error.filename is None or error.errno not in REFUSALS:
        return ""
    return f"{os.fsdecode(error.filename)}: {error.strerror}; {REFUSALS[error.errno]}"


def explained(error: Exception) -> str:
    """Return an error's message; that of an error that users cannot mend begins with its type."""
    if isinstance(error, DasoError):
        return str(error)
    refused = refusal(error) if isinstance(error, OSError) else ""
    return refused or f"{type(error).__name__}: {error}"


def in_line(error: BaseException) -> str:
    """Return what is wrong with a line of JSON, without the number 1 that it gives to that line."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.pos + 1}"
    return str(error)


def problems(items: Sequence[tuple[str, str]], what: str, cure: str, *, between: str = ": ") -> str:
    """Return the text of an error about many items: the first 20 with reasons, and a count."""
    lines = [f"  {name}{between}{reason}" for name, reason in items[:20]]
    if len(items) > 20:
        lines.append(f"  and {len(items) - 20} more")
    return "\n".join([f"{what}:", *lines, cure])
