"""What the value of an option may be: ranges, choices and checks, declared beside the option."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from daso.errors import OptionError, Range, check_choice, flag, nearest


@dataclass(frozen=True)
class Checked:
    """Marks a type, in ``Annotated``, whose values *check* gets, with their names, when parsed."""

    check: Callable[[str, Any], None]


def check_options(options: Any) -> None:
    """Check a dataclass of options as ``check_value`` does; None is valid where it is the default.

    Raises:
        OptionError: a value is not one of its choices, or out of its range.
    """
    fields = options.__dataclass_fields__
    for name, annotation in annotations_of(options.__class__).items():
        value = getattr(options, name)
        if value is not None or fields[name].default is not None:
            check_value(name, value, annotation)


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Check a value against the choices, the range and the checks of its option's type.

    Raises:
        OptionError: the value is out of range or not one of the choices; the nearest one is named.
        DasoError: a check fails.
    """
    kind = kind_of(annotation)
    values = value if isinstance(value, tuple) else (value,)
    for one in values if kind.choices else ():
        check_choice(name, one, kind.choices)
    for mark in kind.marks:
        if isinstance(mark, Checked):
            mark.check(name, value)
        elif isinstance(mark, Range):
            for one in values:
                mark.check(name, one)


@cache
def annotations_of(kind: type[Any]) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    return get_type_hints(kind, include_extras=True)


@dataclass(frozen=True)
class Kind:
    """What the type of an option says.

    Attributes:
        one: type of one value; of several types the first.
        choices: the strings that a ``Literal`` allows; ``()`` for other types.
        several: whether the option takes a tuple of values.
        optional: whether None is a value.
        marks: of ``Annotated``.
    """

    one: Any
    choices: tuple[str, ...] = ()
    several: bool = False
    optional: bool = False
    marks: tuple[Any, ...] = ()


def kind_of(annotation: Any) -> Kind:
    """Return what a type says: perhaps ``Annotated``, optional, a tuple or a ``Literal``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = kind_of(arguments[0])
        return replace(inner, marks=(*annotation.__metadata__, *inner.marks))
    if origin in (Union, types.UnionType):
        first, *others = (kind for kind in arguments if kind is not type(None))
        inner = kind_of(first)
        choices = () if others else inner.choices
        return replace(inner, choices=choices, optional=type(None) in arguments)
    if origin is tuple:
        return replace(kind_of(arguments[0]), several=True)
    is_choice = origin is Literal and all(isinstance(value, str) for value in arguments)
    return Kind(annotation, arguments if is_choice else ())


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
