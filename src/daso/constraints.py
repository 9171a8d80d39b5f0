"""What the value of an option may be: ranges, choices and checks, declared beside the option."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from daso.errors import OptionError, nearest
from daso.errors import flag as flag


@dataclass(frozen=True)
class Range:
    """An interval of numbers, closed unless an end is excluded; infinity never belongs to it."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        low = self.low < value if self.above else self.low <= value
        high = value < self.high if self.below or self.high == math.inf else value <= self.high
        return low and high

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.below else 'at most'} {self.high:.10g}"


@dataclass(frozen=True)
class Checked:
    """Marks a type, in ``Annotated``, whose values *check* gets, with their names, when parsed."""

    check: Callable[[str, Any], None]


def check_options(options: Any, ranges: Mapping[str, Range]) -> None:
    """Check a dataclass of options; None is valid where it is the default.

    Raises:
        OptionError: a value is not one of its choices, or out of its range.
    """
    fields = options.__dataclass_fields__
    for name, annotation in _annotations(options.__class__).items():
        value = getattr(options, name)
        if value is None and fields[name].default is None:
            continue
        check_value(name, value, annotation)
        if name in ranges and value not in ranges[name]:
            raise OptionError(
                f"{name} = {value!r} is out of range ({flag(name)}): it must be {ranges[name]}"
            )


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Check a value against the choices and the checks of its option's type.

    Raises:
        OptionError: the value is not one of the choices; the nearest one is named.
        DasoError: a check fails.
    """
    choices = choices_of(annotation)
    for one in value if isinstance(value, tuple) else (value,):
        if choices and one not in choices:
            raise OptionError(
                f"{name} = {one!r} ({flag(name)}): invalid choice; "
                f"choose from {', '.join(choices)}."
                f"{nearest(str(one), choices)}"
            )
    for check in _checks(annotation):
        check(name, value)


@cache
def _annotations(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _checks(annotation: Any) -> Iterator[Callable[[str, Any], None]]:
    for mark in getattr(annotation, "__metadata__", ()):
        if isinstance(mark, Checked):
            yield mark.check
    arguments = get_args(annotation)
    for inner in arguments[:1] if get_origin(annotation) is Annotated else arguments:
        yield from _checks(inner)


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return the strings that a type allows: a ``Literal``, optional or in a tuple; else ()."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arguments if all(isinstance(value, str) for value in arguments) else ()
    if origin is Annotated:
        return choices_of(arguments[0])
    if origin in (Union, types.UnionType, tuple):
        kinds = [kind for kind in arguments if kind not in (type(None), ...)]
        return choices_of(kinds[0]) if len(kinds) == 1 else ()
    return ()


DEVICES = ("auto", "cpu", "cuda", "mps")
ALIASES = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"}
"""Other names of devices, and torch's."""


def check_device(name: str, device: str) -> None:
    """Raise an ``OptionError`` for an unknown device; a known one may still be missing here."""
    kind = str(device).partition(":")[0]
    if kind not in DEVICES:
        alias = ALIASES.get(kind.lower())
        hint = f" Did you mean {alias!r}?" if alias else nearest(kind, DEVICES)
        raise OptionError(
            f"{flag(name)} {device}: unknown device; choose from cpu, cuda, cuda:1, mps, or auto, "
            f"the first accelerator.{hint}"
        )


Device = Annotated[str, Checked(check_device)]
