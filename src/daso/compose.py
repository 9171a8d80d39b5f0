"""From a method's name, such as ``fixmatch+la+daso``, and options to a composed method and its plan."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from daso import catalog
from daso.catalog import Hyperparameter, argument_descriptions
from daso.errors import DasoError, OptionError, nearest
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Method
from daso.parts import Facts, Part
from daso.plans.plan import Plan
from daso.refine.guess import Refiner, chain
from daso.terms.term import Term


def _load_all(places: Mapping[str, str]) -> dict[str, Any]:
    """Import the classes of a table of the catalog, by name."""
    return {
        name: getattr(importlib.import_module(module), found)
        for name, (module, found) in ((name, place.split(":")) for name, place in places.items())
    }


METHODS: dict[str, type[Method]] = _load_all(catalog.METHODS)
LOSSES: dict[str, type[LabeledLoss]] = _load_all(catalog.LOSSES)
REFINERS: dict[str, type[Refiner]] = _load_all(catalog.REFINERS)
TERMS: dict[str, type[Term]] = _load_all(catalog.TERMS)
PLANS: dict[str, type[Plan]] = _load_all(catalog.PLANS)
ADDITIONS: dict[str, type[Part]] = {**LOSSES, **REFINERS, **TERMS, **PLANS}
"""What may be added to a method, by name."""

SLOTS: dict[str, type[Part]] = dict(zip(catalog.SLOTS, (LabeledLoss, Refiner, Term), strict=True))
"""Arguments of a method's constructor that are places for other parts, and what goes there."""


@dataclass(frozen=True)
class Recipe:
    """What a method's name stands for.

    Attributes:
        name: as given.
        method: the learner.
        loss: on the labelled images; None: the method's own.
        refiners: of its guesses, first one first.
        terms: further losses.
        plan: how the run is divided into trainings.
    """

    name: str
    method: type[Method]
    loss: type[LabeledLoss] | None = None
    refiners: tuple[type[Refiner], ...] = ()
    terms: tuple[type[Term], ...] = ()
    plan: type[Plan] = Plan

    @classmethod
    def parse(cls, name: str) -> Recipe:
        """Read a method's name: a method, then parts to add, joined by ``+``, in any order but for refiners.

        A method or part of one's own is ``module:Class`` or ``file.py:Class``.

        Raises:
            OptionError: a part is unknown (the nearest one is named) or does not fit; the message says why.
        """
        first, *rest = _split(name)
        recipe = cls(name, cast(type[Method], _find(first, METHODS, Method, "method", name)))
        for addition in rest:
            recipe = recipe._add(_find(addition, ADDITIONS, Part, "part", name), addition)
        for part in recipe.plan.brings:
            if not recipe._has(part):
                given = recipe.refiners
                recipe = replace(
                    recipe._add(REFINERS[part], part), refiners=(REFINERS[part], *given)
                )
        provided = recipe.plan.provides
        asked = {
            argument for part in recipe.parts() for argument in inspect.signature(part).parameters
        }
        if provided is not None and provided not in asked:
            users = [
                n for n, part in ADDITIONS.items() if provided in inspect.signature(part).parameters
            ]
            raise OptionError(
                f"nothing in {name!r} uses what its plan works out; {', '.join(users)} would"
            )
        return recipe

    def _has(self, part: str) -> bool:
        own = part in inspect.signature(self.method).parameters
        replaced = any(refiner.replaces_alignment for refiner in self.refiners)
        return REFINERS[part] in self.refiners or (own and not replaced)

    def _add(self, part: type[Part], called: str) -> Recipe:
        if part in self.parts():
            raise OptionError(f"{called!r} is named twice in {self.name!r}")
        if issubclass(part, Method):
            raise OptionError(f"{called!r} is a method of its own; {self.name!r} can have only one")
        if issubclass(part, Plan):
            if self.plan is not Plan:
                raise OptionError(f"{self.name!r} names two ways to divide a run; it can have one")
            return replace(self, plan=part)
        slot = next((slot for slot, base in SLOTS.items() if issubclass(part, base)), None)
        if slot is None:
            raise OptionError(f"{called!r} is not a part that can be added to a method")
        if slot not in inspect.signature(self.method).parameters:
            reason = self.method.refuses.get(slot, "it has no place for such a part")
            raise OptionError(f"{self.method.__name__} does not take {called!r}: {reason}")
        if issubclass(part, LabeledLoss):
            if self.loss is not None:
                raise OptionError(
                    f"{self.name!r} names two losses on labelled images; it can have one"
                )
            return replace(self, loss=part)
        if issubclass(part, Term):
            return replace(self, terms=(*self.terms, part))
        return replace(self, refiners=(*self.refiners, cast(type[Refiner], part)))

    def parts(self) -> list[type[Part]]:
        """Return the classes of all parts."""
        loss = [] if self.loss is None else [self.loss]
        return [self.method, *loss, *self.refiners, *self.terms, self.plan]

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the hyper-parameters of all parts by name: their keyword-only arguments but for other parts.

        Raises:
            OptionError: two parts have one of the same name, or one has no type or no default.
        """
        found: dict[str, Hyperparameter] = {}
        for part in self.parts():
            descriptions = argument_descriptions(inspect.getdoc(part) or "")
            try:
                signature = inspect.signature(part, eval_str=True)
            except NameError as error:
                raise OptionError(
                    f"{part.__name__}: a type of its constructor's arguments is unknown when it is read: {error}"
                ) from error
            for argument in signature.parameters.values():
                name = argument.name
                if argument.kind is not argument.KEYWORD_ONLY or name in SLOTS:
                    continue
                if name in found:
                    raise OptionError(f"{found[name].part} and {part.__name__} both have {name!r}")
                lacking = [
                    what
                    for what, value in (
                        ("type", argument.annotation),
                        ("default", argument.default),
                    )
                    if value is argument.empty
                ]
                if lacking:
                    raise OptionError(
                        f"{part.__name__}: its hyper-parameter {name!r} has no {' and no '.join(lacking)}: write it "
                        f"as {name}: float = 0.5, so that it can be an option"
                    )
                found[name] = Hyperparameter(
                    name,
                    argument.annotation,
                    argument.default,
                    part.__name__,
                    descriptions.get(name, ""),
                )
        return found

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise an ``OptionError`` that names the nearest one if there is no hyper-parameter of an option's name."""
        known = self.hyperparameters()
        for option in options:
            if option not in known:
                raise OptionError(
                    f"{self.name} has no option {option!r}; it has {', '.join(known) or 'none'}."
                    f"{nearest(option, known)}"
                )

    def build_method(self, facts: Facts, options: Mapping[str, Any]) -> Method:
        """Build the method; hyper-parameters that *options* does not have keep their defaults.

        Raises:
            OptionError: an option is unknown or a value is out of range.
        """
        self.check_options(options)
        slots: dict[str, Any] = {}
        if self.loss is not None:
            slots["supervised"] = _build(self.loss, facts, options)
        if self.refiners:
            refiners = [cast(Refiner, _build(refiner, facts, options)) for refiner in self.refiners]
            slots["refine"] = chain(*refiners)
        if self.terms:
            slots["terms"] = [_build(term, facts, options) for term in self.terms]
        return cast(Method, _build(self.method, facts, options, **slots))

    def build_plan(self, facts: Facts, options: Mapping[str, Any]) -> Plan:
        """Build the plan, as ``build_method`` does the method."""
        self.check_options(options)
        return cast(Plan, _build(self.plan, facts, options))

    def resolved_options(self, method: Method, plan: Plan) -> dict[str, Any]:
        """Return every hyper-parameter of a built method and plan as it is in force, defaults worked out.

        Raises:
            OptionError: a part does not keep one under its name.
        """
        parts = {type(module).__name__: module for module in (*method.modules(), plan)}
        values = {}
        for option, parameter in self.hyperparameters().items():
            part = parts[parameter.part]
            if not hasattr(part, option):
                raise OptionError(
                    f"{parameter.part} does not keep its hyper-parameter {option!r}, which the run folder has to tell: "
                    f"set self.{option} in its constructor"
                )
            values[option] = getattr(part, option)
        return values


def compose(name: str, facts: Facts, options: Mapping[str, Any] | None = None) -> Method:
    """Build the method called *name*, for a run of a single training.

    Args:
        name: a method, then parts to add, joined by ``+``: ``fixmatch+daso``.
        facts: of the run.
        options: hyper-parameters of any of the parts, by name; the others keep their defaults.

    Raises:
        OptionError: a part or an option is unknown, or a value is out of range.
    """
    return Recipe.parse(name).build_method(facts, options or {})


def _build(part: type[Part], facts: Facts, options: Mapping[str, Any], **slots: Any) -> Part:
    arguments = inspect.signature(part).parameters.values()
    asked = [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]
    for name in asked:
        if not hasattr(facts, name):
            raise OptionError(
                f"{part.__name__} asks for {name!r}, which is no fact of a run; these are "
                f"{', '.join(vars(facts))}. A hyper-parameter is a keyword-only argument, after a *"
            )
    positional = [getattr(facts, name) for name in asked]
    mine = {a.name: options[a.name] for a in arguments if a.name in options}
    return cast(Callable[..., Part], part)(*positional, **mine, **slots)


def _split(name: str) -> list[str]:
    """Split a method's name at each ``+``.

    Raises:
        OptionError: one of them is in the path of a file of one's own.
    """
    pieces = name.split("+")
    for first, last in itertools.combinations(range(len(pieces)), 2):
        place = "+".join(pieces[first : last + 1]).rpartition(":")[0]
        if "+" in place and place.endswith(".py") and Path(place).expanduser().is_file():
            raise OptionError(
                f"the path {place} has a + in it, which joins the parts of a method: rename it, or go by a link to it"
            )
    return pieces


def _find(
    name: str, known: Mapping[str, type[Part]], base: type[Part], what: str, within: str
) -> type[Part]:
    """Return the part called *name*; with a colon in it, one of the user's own."""
    if ":" in name:
        return _own(name, base)
    if name in known:
        return known[name]
    place = "" if name == within else f" in {within!r}"
    if name in ADDITIONS:
        hint = " It is a part to add to a method."
    elif name in METHODS:
        hint = " It is a method of its own."
    else:
        hint = nearest(name, known)
    raise OptionError(f"unknown {what} {name!r}{place}; there are {', '.join(known)}.{hint}")


def _own(name: str, base: type[Part]) -> type[Part]:
    """Return the class ``module:Class`` or ``file.py:Class``."""
    place, _, attribute = name.rpartition(":")
    module = _load(place)
    part = getattr(module, attribute, None)
    if not (inspect.isclass(part) and issubclass(part, base)):
        classes = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, base)]
        raise OptionError(
            f"{place} has no {base.__name__} called {attribute!r}; it has {', '.join(classes) or 'none'}."
            f"{nearest(attribute, classes)}"
        )
    return part


@lru_cache
def _load(place: str) -> ModuleType:
    """Import a module by its name or its file."""
    try:
        if place.endswith(".py"):
            path = Path(place).expanduser().resolve()
            if not path.is_file():
                raise OptionError(f"there is no file {path}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            spec.loader.exec_module(module)
            return module
        if "" not in sys.path:
            sys.path.insert(0, "")  # a module in the working directory, as with python -m
        return importlib.import_module(place)
    except DasoError:
        raise
    except Exception as error:  # whatever the code of another does while it is imported
        raise OptionError(f"cannot import {place!r}: {type(error).__name__}: {error}") from error
