"""The catalog reads from the sources what the classes say, without importing them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from daso.catalog import (
    ADDITIONS,
    METHODS,
    Outline,
    arguments,
    hyperparameters,
    load,
    name_of,
    outline,
    parts_with,
)
from daso.compose import Recipe
from daso.errors import OptionError
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Method
from daso.parts import Part
from daso.plans.plan import Plan
from daso.readout.part import Mixture
from daso.refine.guess import Refiner
from daso.terms.term import Term

NAMES = METHODS | ADDITIONS


def declared(part: type[Any]) -> Iterator[str]:
    """Yield the names of the plain values that a class and its bases declare."""
    for base in inspect.getmro(part):
        if issubclass(base, Part):
            for name, value in vars(base).items():
                if isinstance(value, str | bool | int | float | tuple | dict) and name[0] != "_":
                    yield name


def test_outlines_declare_what_the_classes_declare() -> None:
    for name, place in NAMES.items():
        part, read = load(outline(place)), outline(place)
        assert isinstance(read, Outline)
        assert not isinstance(part, Outline)
        assert hyperparameters(read) == hyperparameters(part), name
        assert list(arguments(read)) == list(arguments(part)), name
        assert inspect.getdoc(read) == inspect.getdoc(part), name
        names = {*declared(part)}
        assert {"kind", "paper", "balances"} <= names
        for attribute in names:
            assert getattr(read, attribute) == getattr(part, attribute), (name, attribute)
        assert name_of(read) == name_of(part) == name


def test_every_option_of_every_part_has_a_type_a_default_and_help() -> None:
    for name, place in NAMES.items():
        for parameter in hyperparameters(outline(place)):
            assert parameter.help, (name, parameter.name)
            assert not isinstance(parameter.annotation, str), (name, parameter.name)


def test_every_part_is_of_its_kind_and_says_where_it_is_from() -> None:
    bases = {
        "method": Method,
        "labeled loss": LabeledLoss,
        "refiner": Refiner,
        "term": Term,
        "plan": Plan,
        "readout": Mixture,
    }
    for name, place in NAMES.items():
        part = load(outline(place))
        assert issubclass(part, bases[part.kind]), name
        assert (part.kind == "method") == (name in METHODS)
        assert part.paper or name == "supervised", name


def test_parts_with_an_option() -> None:
    assert parts_with("dist_temperature") == ["+daso"]
    assert parts_with("warmup_steps") == ["usadtm", "+daso"]
    assert parts_with("speed") == []


def test_what_balances_a_composed_method() -> None:
    for name, parts in (
        ("fixmatch+daso", []),
        ("fixmatch+la+daso", ["la"]),
        ("supervised+ldam+crt", ["crt", "ldam"]),
        ("boss+abc+class-balanced", ["abc", "class-balanced"]),
    ):
        assert Recipe.parse(name).balanced_by() == parts


def test_an_estimate_is_refused_where_nothing_uses_its_estimate() -> None:
    with pytest.raises(OptionError, match="align or darp"):
        Recipe.parse("fixmatch+estimate")
