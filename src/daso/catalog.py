"""The methods and parts by name, and the hyper-parameters of each, read from its source: without importing torch."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

METHODS = {
    "supervised": "daso.methods.supervised:Supervised",
    "pseudolabel": "daso.methods.pseudo_label:PseudoLabel",
    "meanteacher": "daso.methods.mean_teacher:MeanTeacher",
    "mixmatch": "daso.methods.mixmatch:MixMatch",
    "remixmatch": "daso.methods.remixmatch:ReMixMatch",
    "fixmatch": "daso.methods.fixmatch:FixMatch",
    "boss": "daso.methods.boss:BOSS",
    "usadtm": "daso.methods.usadtm:USADTM",
}
LOSSES = {
    "la": "daso.losses.logit_adjusted:LogitAdjusted",
    "ldam": "daso.losses.ldam:LDAM",
    "class-balanced": "daso.losses.class_balanced:ClassBalanced",
}
REFINERS = {
    "align": "daso.refine.align:Align",
    "sharpen": "daso.refine.sharpen:Sharpen",
    "daso": "daso.refine.daso:DASO",
    "darp": "daso.refine.darp:DARP",
}
TERMS = {"abc": "daso.terms.abc:ABC"}
PLANS = {
    "crest": "daso.plans.crest:CReST",
    "crest-plus": "daso.plans.crest:CReSTPlus",
    "crt": "daso.plans.crt:CRT",
    "estimate": "daso.plans.estimate:EstimatePrior",
}
ADDITIONS = {**LOSSES, **REFINERS, **TERMS, **PLANS}
"""What may be added to a method, by name."""

SLOTS = ("supervised", "refine", "terms")
"""Arguments of a method's constructor that are places for other parts."""


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


def written_hyperparameters(method: str) -> dict[str, Hyperparameter] | None:
    """Return the hyper-parameters of a method by name, as ``Recipe.hyperparameters`` does, but from the sources.

    Whether its parts fit together is not looked at.

    Args:
        method: a method's name, and what is added to it.

    Returns:
        None where the sources do not tell: a part of one's own, an unknown name, a plan (which may bring other parts),
        or two of one name.
    """
    first, *rest = method.split("+")
    if first not in METHODS or any(part not in ADDITIONS or part in PLANS for part in rest):
        return None
    found: dict[str, Hyperparameter] = {}
    added = [kind[part] for kind in (LOSSES, REFINERS, TERMS) for part in rest if part in kind]
    for place in (METHODS[first], *added):
        for parameter in _written(place):
            if parameter.name in found:
                return None
            found[parameter.name] = parameter
    return found


def parts_with(name: str) -> list[str]:
    """Return the methods, and with a ``+`` before them the parts, that have a hyper-parameter of this name."""
    places = [*METHODS.items(), *((f"+{part}", place) for part, place in ADDITIONS.items())]
    return [part for part, place in places if name in {known.name for known in _written(place)}]


@lru_cache
def _written(place: str) -> tuple[Hyperparameter, ...]:
    """Return the hyper-parameters of a part of ours, ``module:Class``."""
    module, _, name = place.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    part = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    descriptions = argument_descriptions(inspect.cleandoc(ast.get_docstring(part) or ""))
    return tuple(
        Hyperparameter(argument, annotation, default, name, descriptions.get(argument, ""))
        for argument, annotation, default in _keyword_arguments(part, _names(tree))
    )


def _names(tree: ast.Module) -> Mapping[str, Any]:
    """Return what types and defaults may be written with: ``Literal``, and names that a module gives to such types."""
    known: dict[str, Any] = {"Literal": Literal}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            value = node.value.value
            if isinstance(value, ast.Name) and value.id == "Literal":
                known |= {
                    target.id: _value(node.value, known)
                    for target in node.targets
                    if isinstance(target, ast.Name)
                }
    return known


def _keyword_arguments(
    part: ast.ClassDef, names: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, type and default of the keyword-only arguments of a constructor, but for places of other parts."""
    for node in part.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                if argument.arg not in SLOTS:
                    assert argument.annotation is not None
                    assert default is not None
                    yield argument.arg, _value(argument.annotation, names), _value(default, names)


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<source>", "eval"), dict(names))


def argument_descriptions(doc: str) -> dict[str, str]:
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
