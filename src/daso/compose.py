"""Turn a method's name, such as ``fixmatch+la+daso``, and options into a method and its plan.

Parsing a name and listing its options needs no torch; only building a part imports it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from daso import catalog
from daso.catalog import SLOTS, Hyperparameter, arguments, load, name_of, outline
from daso.errors import DasoError, OptionError, nearest
from daso.files import leads_somewhere

if TYPE_CHECKING:
    from daso.losses.labeled import LabeledLoss
    from daso.methods.method import Method
    from daso.parts import Facts, Part
    from daso.plans.plan import Plan
    from daso.readout.part import Mixture
    from daso.refine.guess import Refiner
    from daso.terms.term import Term


@dataclass(frozen=True)
class Recipe:
    """The parts that a method's name stands for.

    Parts of the catalog are outlines, which declare what the classes declare; ``catalog.load``
    imports the class of one. Custom parts are the classes themselves.

    Attributes:
        loss: on the labeled images; None: the method's own.
        refiners: of its guesses, in order.
        plan: how the run is divided into trainings; None: it is one training.
        readout: what classifies in place of the trained head; None: nothing does.
    """

    name: str
    method: type[Method]
    loss: type[LabeledLoss] | None = None
    refiners: tuple[type[Refiner], ...] = ()
    terms: tuple[type[Term], ...] = ()
    plan: type[Plan] | None = None
    readout: type[Mixture] | None = None

    @classmethod
    def parse(cls, name: str) -> Recipe:
        """Parse a method's name: a method, then additions, joined by ``+``.

        Only the order of refiners matters. A custom method or addition is ``module:Class`` or
        ``file.py:Class``.

        Raises:
            OptionError: a part is unknown (the nearest one is named) or does not fit.
        """
        first, *rest = _split(name)
        recipe = cls(name, _find(first, catalog.METHODS, "method", name))
        for addition in rest:
            recipe = recipe._add(_find(addition, catalog.ADDITIONS, "part", name), addition)
        plan = recipe.plan
        if plan is None:
            return recipe
        for part in plan.brings:
            if not recipe._has(part):
                refiner = outline(catalog.ADDITIONS[part])
                recipe._add(refiner, part)
                recipe = replace(recipe, refiners=(refiner, *recipe.refiners))
        provided = plan.provides
        if provided is not None and not any(provided in arguments(p) for p in recipe.parts()):
            users = [n for n, at in catalog.ADDITIONS.items() if provided in arguments(outline(at))]
            raise OptionError(
                f"{name_of(plan)!r} has no effect in {name!r}: no other part uses its "
                f"estimate; add {' or '.join(users)}"
            )
        return recipe

    def _has(self, part: str) -> bool:
        is_builtin = part in arguments(self.parts()[0])
        is_replaced = any(refiner.replaces_alignment for refiner in self.refiners)
        return outline(catalog.ADDITIONS[part]) in self.refiners or (is_builtin and not is_replaced)

    def _add(self, part: Any, called: str) -> Recipe:
        if part in self.parts():
            raise OptionError(f"{self.name!r} names {called!r} twice")
        if part.kind == "method":
            raise OptionError(f"{called!r} is a method, and {self.name!r} already has one")
        if part.kind == "plan":
            if self.plan is not None:
                raise OptionError(f"{self.name!r} divides the run in two ways; name one of them")
            return replace(self, plan=part)
        if part.kind == "readout":
            if self.readout is not None:
                raise OptionError(f"{self.name!r} names two readouts; name one of them")
            return replace(self, readout=part)
        if part.kind not in SLOTS:
            raise OptionError(f"{called!r} cannot be added to a method: it is of no known kind")
        slot = SLOTS[part.kind]
        if slot not in self.slots():
            reason = self.method.refuses.get(slot, f"its constructor has no argument {slot!r}")
            raise OptionError(f"{self.method.__name__} does not take {called!r}: {reason}")
        if part.kind == "labeled loss":
            if self.loss is not None:
                raise OptionError(f"{self.name!r} names two losses on labeled images; name one")
            return replace(self, loss=part)
        if part.kind == "term":
            return replace(self, terms=(*self.terms, part))
        return replace(self, refiners=(*self.refiners, part))

    def parts(self) -> list[Any]:
        """Return the classes or outlines of all parts, the method first."""
        optional = [self.loss, *self.refiners, *self.terms, self.plan, self.readout]
        return [self.method, *(part for part in optional if part is not None)]

    def slots(self) -> list[str]:
        """Return the arguments of the method that take other parts."""
        return [slot for slot in SLOTS.values() if slot in arguments(self.parts()[0])]

    def balanced_by(self) -> list[str]:
        """Return the names of the parts that balance the classifier, sorted."""
        return sorted(name_of(part) for part in self.parts() if part.balances)

    def describe(self) -> dict[str, list[str]]:
        """Return the facts about the method that reports need, as JSON values."""
        return {"balanced_by": self.balanced_by(), "slots": self.slots()}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the hyper-parameters of all parts, by name.

        Raises:
            OptionError: two parts have one of the same name, or one lacks a type or a default.
        """
        found: dict[str, Hyperparameter] = {}
        for part in self.parts():
            for parameter in catalog.hyperparameters(part):
                if other := found.get(parameter.name):
                    raise OptionError(
                        f"{other.part} and {parameter.part} both have {parameter.name!r}"
                    )
                found[parameter.name] = parameter
        return found

    def check_options(self, options: Iterable[str]) -> None:
        """Raise an ``OptionError`` that names the nearest hyper-parameter if one is unknown."""
        known = self.hyperparameters()
        for option in options:
            if option not in known:
                raise OptionError(
                    f"{self.name} has no option {option!r}; choose from "
                    f"{', '.join(known) or 'none'}.{nearest(option, known)}"
                )

    def check_readout(self, steps: int | None) -> None:
        """Raise an ``OptionError`` if there is no readout, but the method or 0 steps need one."""
        if self.method.needs_readout and self.readout is None:
            raise OptionError(
                f"{self.name} needs a readout, which teaches the network; add +mixture to it"
            )
        if steps == 0 and self.readout is None:
            raise OptionError(
                f"steps = 0 is out of range (--steps): it must be at least 1, since {self.name} "
                "fits no readout; raise it, or add +mixture to the method"
            )

    def idle_options(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Return the hyper-parameters that have no effect, given all *options*, and why."""
        values = {name: known.default for name, known in self.hyperparameters().items()}
        classes = [load(part) for part in self.parts()]
        return {
            name: reason
            for part in classes
            for names, reason in part.idle_options({**values, **options}, classes)
            for name in names
        }

    def remarks(self, options: Mapping[str, Any], steps: int) -> list[str]:
        """Return what a user should know about resolved *options* in *steps* steps."""
        return [text for part in self.parts() for text in load(part).remarks(options, steps)]

    def build_method(self, facts: Facts, options: Mapping[str, Any]) -> Method:
        """Build the method; hyper-parameters that are not in *options* keep their defaults.

        Raises:
            OptionError: an option is unknown or a value is out of range.
        """
        from daso.refine.guess import chain

        self.check_options(options)
        slots: dict[str, Any] = {}
        if self.loss is not None:
            slots["supervised"] = _build(self.loss, facts, options)
        if self.refiners:
            slots["refine"] = chain(*(_build(part, facts, options) for part in self.refiners))
        if self.terms:
            slots["terms"] = [_build(term, facts, options) for term in self.terms]
        method: Method = _build(self.method, facts, options, **slots)
        return method

    def build_plan(self, facts: Facts, options: Mapping[str, Any]) -> Plan:
        """Build the plan, with hyper-parameters as in ``build_method``.

        Raises:
            OptionError: see ``build_method``; or the last training would not use the readout.
        """
        from daso.plans.plan import Plan

        self.check_options(options)
        plan: Plan = _build(self.plan or Plan, facts, options)
        last = plan.stages()[-1].method
        if self.readout is not None and last is not None:
            raise OptionError(
                f"{name_of(self.readout)!r} has no effect in {self.name!r}: the last training is "
                f"of the method {last!r}, which has no readout; leave one of the two out"
            )
        return plan

    def build_readout(self, facts: Facts, options: Mapping[str, Any]) -> Mixture | None:
        """Build the readout, with hyper-parameters as in ``build_method``; None without one."""
        self.check_options(options)
        if self.readout is None:
            return None
        readout: Mixture = _build(self.readout, facts, options)
        return readout

    def resolved_options(self, method: Method, *others: Part | None) -> dict[str, Any]:
        """Return the values of all hyper-parameters of a built method and its other parts, by name.

        Raises:
            OptionError: a part does not keep one under its name.
        """
        parts = {type(module).__name__: module for module in (*method.modules(), *others)}
        values = {}
        for option, parameter in self.hyperparameters().items():
            part = parts[parameter.part]
            if not hasattr(part, option):
                raise OptionError(
                    f"{parameter.part} does not keep its hyper-parameter {option!r}, which the run "
                    f"folder records; set self.{option} in its constructor"
                )
            values[option] = getattr(part, option)
        return values


def compose(name: str, facts: Facts, options: Mapping[str, Any] | None = None) -> Method:
    """Build the method called *name*, for a run of a single training.

    Raises:
        OptionError: a part or an option is unknown, or a value is out of range.
    """
    return Recipe.parse(name).build_method(facts, options or {})


def _build(part: type[Part], facts: Facts, options: Mapping[str, Any], **slots: Any) -> Any:
    found: Any = load(part)
    parameters = arguments(found).values()
    requested = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    for name in requested:
        if not hasattr(facts, name):
            raise OptionError(
                f"{part.__name__} requests {name!r}, which is not a fact of a run; choose from "
                f"{', '.join(vars(facts))}, or put it after a * as a hyper-parameter"
            )
    values = {p.name: options[p.name] for p in parameters if p.name in options}
    return found(*(getattr(facts, name) for name in requested), **values, **slots)


def _split(name: str) -> list[str]:
    """Split a method's name at each ``+``; refuse one in the path of a custom part."""
    pieces = name.split("+")
    for first, last in itertools.combinations(range(len(pieces)), 2):
        place = "+".join(pieces[first : last + 1]).rpartition(":")[0]
        if "+" in place and place.endswith(".py") and Path(place).expanduser().is_file():
            raise OptionError(
                f"the path {place} contains a +, which joins the parts of a method; rename it or "
                f"use a link to it"
            )
    return pieces


def _find(name: str, places: Mapping[str, str], what: str, within: str) -> Any:
    """Return the outline of the part called *name*; with a colon in it, a custom class."""
    if ":" in name:
        return _custom(name, what)
    if name in places:
        return outline(places[name])
    where = "" if name == within else f" in {within!r}"
    if name in catalog.ADDITIONS:
        hint = f" {name} is an addition to a method."
    elif name in catalog.METHODS:
        hint = f" {name} is a method."
    else:
        hint = nearest(name, places)
    raise OptionError(f"unknown {what} {name!r}{where}; choose from {', '.join(places)}.{hint}")


def _custom(name: str, what: str) -> type[Part]:
    from daso.methods.method import Method
    from daso.parts import Part

    base = Method if what == "method" else Part
    place, _, attribute = name.rpartition(":")
    members = vars(_load_module(place))
    part = members.get(attribute)
    if not (inspect.isclass(part) and issubclass(part, base)):
        classes = [n for n, v in members.items() if inspect.isclass(v) and issubclass(v, base)]
        raise OptionError(
            f"{place} has no {base.__name__} called {attribute!r}; it has "
            f"{', '.join(classes) or 'none'}.{nearest(attribute, classes)}"
        )
    return part


@lru_cache
def _load_module(place: str) -> ModuleType:
    try:
        if place.endswith(".py"):
            path = Path(os.path.realpath(Path(place).expanduser()))
            if not leads_somewhere(path):
                raise OptionError(f"{path} does not exist")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            spec.loader.exec_module(module)
            return module
        if "" not in sys.path:
            sys.path.insert(0, "")  # modules in the working directory, as with python -m
        return importlib.import_module(place)
    except DasoError:
        raise
    except Exception as error:  # custom code can raise anything while it is imported
        raise OptionError(f"cannot import {place!r}: {type(error).__name__}: {error}") from error
