"""From a method's name, such as ``fixmatch+daso``, and options to a composed method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from daso.errors import OptionError, nearest
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Method
from daso.methods.supervised import Supervised
from daso.refine.daso import DASO
from daso.refine.guess import Refiner, chain

METHODS: dict[str, type[Method]] = {"supervised": Supervised, "fixmatch": FixMatch}
REFINERS: dict[str, type[Refiner]] = {"daso": DASO}

_SLOTS = ("refine", "supervised")
"""Arguments of a method that are parts, not hyper-parameters."""


@dataclass(frozen=True)
class Facts:
    """What a part may ask to know of the run; its constructor names the attribute that it needs.

    Attributes:
        num_classes: K.
        dim: D, the length of a feature.
        class_counts: int64, (K,), labelled images of each class.
        total_steps: of the training.
        num_unlabeled: unlabelled images.
    """

    num_classes: int
    dim: int
    class_counts: Tensor
    total_steps: int
    num_unlabeled: int


@dataclass(frozen=True)
class Hyperparameter:
    """A keyword-only argument of a part.

    Attributes:
        name: of the argument.
        annotation: its type, evaluated.
        default: its value.
        part: name of the class that it belongs to.
        help: its description from the class's docstring.
    """

    name: str
    annotation: Any
    default: Any
    part: str
    help: str


def _refines(method: type[Method]) -> bool:
    return "refine" in inspect.signature(method).parameters


def method_names() -> list[str]:
    """Return the methods, and each one that guesses with each refiner, as the command line takes them."""
    composed = [f"{name}+{part}" for name, method in METHODS.items() if _refines(method) for part in REFINERS]
    return [*METHODS, *composed]


def parts_of(name: str) -> list[type[nn.Module]]:
    """Return the classes that a method's name stands for: the method, then its refiners in order.

    Raises:
        OptionError: a part is unknown (the nearest one is named) or does not fit the method.
    """
    first, *rest = name.split("+")
    if first not in METHODS:
        valid = method_names()
        raise OptionError(f"unknown method {name!r}; methods: {', '.join(valid)}.{nearest(name, valid)}")
    parts: list[type[nn.Module]] = [METHODS[first]]
    for part in rest:
        if part not in REFINERS:
            raise OptionError(
                f"unknown part {part!r} in {name!r}; parts to add to a method: {', '.join(REFINERS)}."
                f"{nearest(part, REFINERS)}"
            )
        if not _refines(METHODS[first]):
            raise OptionError(f"{first} makes no guesses about unlabelled images that {part!r} could refine")
        if rest.count(part) > 1:
            raise OptionError(f"{part!r} is named twice in {name!r}")
        parts.append(REFINERS[part])
    return parts


def hyperparameters(parts: list[type[nn.Module]]) -> dict[str, Hyperparameter]:
    """Return the hyper-parameters of parts by name: their keyword-only arguments but for other parts.

    Raises:
        OptionError: two parts have one of the same name.
    """
    found: dict[str, Hyperparameter] = {}
    for part in parts:
        descriptions = _argument_descriptions(inspect.getdoc(part) or "")
        for argument in inspect.signature(part, eval_str=True).parameters.values():
            if argument.kind is not argument.KEYWORD_ONLY or argument.name in _SLOTS:
                continue
            if argument.name in found:
                raise OptionError(
                    f"{found[argument.name].part} and {part.__name__} both have {argument.name!r}"
                )
            found[argument.name] = Hyperparameter(
                argument.name,
                argument.annotation,
                argument.default,
                part.__name__,
                descriptions.get(argument.name, ""),
            )
    return found


def _argument_descriptions(doc: str) -> dict[str, str]:
    """Read the ``Args:`` section of a docstring: name to description."""
    descriptions: dict[str, str] = {}
    inside, name = False, ""
    for line in doc.splitlines():
        if not line.startswith(" "):
            inside = line.strip() == "Args:" if line.strip() else inside
        elif inside and line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            descriptions[name] = text
        elif inside and name:
            descriptions[name] += " " + line.strip()
    return descriptions


def compose(name: str, facts: Facts, options: Mapping[str, Any] | None = None) -> Method:
    """Build the method called *name*.

    Args:
        name: a method, then refiners, joined by ``+``: ``fixmatch+daso``.
        facts: of the run.
        options: hyper-parameters of any of the parts, by name; the others keep their defaults.

    Raises:
        OptionError: a part or an option is unknown, or a value is out of range.
    """
    parts, options = parts_of(name), dict(options or {})
    known = hyperparameters(parts)
    for option in options:
        if option not in known:
            raise OptionError(
                f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}.{nearest(option, known)}"
            )

    def build(part: type[nn.Module], **slots: Any) -> nn.Module:
        arguments = inspect.signature(part).parameters.values()
        positional = [getattr(facts, a.name) for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]
        mine = {a.name: options[a.name] for a in arguments if a.name in options}
        return cast(Callable[..., nn.Module], part)(*positional, **mine, **slots)

    method, *refiners = parts
    slots: dict[str, Any] = {}
    if refiners:
        slots["refine"] = chain(*(cast(Refiner, build(refiner)) for refiner in refiners))
    return cast(Method, build(method, **slots))


def resolved_options(name: str, method: Method) -> dict[str, Any]:
    """Return every hyper-parameter of a composed method as it is in force, defaults worked out.

    Each part keeps a hyper-parameter under the name of its constructor's argument.
    """
    parts = {type(module).__name__: module for module in method.modules()}
    return {
        option: getattr(parts[parameter.part], option)
        for option, parameter in hyperparameters(parts_of(name)).items()
    }
