"""The methods and parts by name, and what their classes declare, read without importing torch.

Importing a part takes seconds. ``outline`` reads what a class declares from its source: its
docstring, attributes and constructor's signature; ``load`` imports the class itself.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from daso.errors import OptionError

METHODS = {
    "supervised": "daso.methods.supervised:Supervised",
    "pseudolabel": "daso.methods.pseudo_label:PseudoLabel",
    "meanteacher": "daso.methods.mean_teacher:MeanTeacher",
    "mixmatch": "daso.methods.mixmatch:MixMatch",
    "remixmatch": "daso.methods.remixmatch:ReMixMatch",
    "fixmatch": "daso.methods.fixmatch:FixMatch",
    "freematch": "daso.methods.variants.freematch:FreeMatch",
    "softmatch": "daso.methods.variants.softmatch:SoftMatch",
    "debiaspl": "daso.methods.variants.debiaspl:DebiasPL",
    "acr": "daso.methods.variants.acr:ACR",
    "simpro": "daso.methods.variants.simpro:SimPro",
    "adello": "daso.methods.variants.adello:ADELLO",
    "cdmad": "daso.methods.variants.cdmad:CDMAD",
    "cossl": "daso.methods.variants.cossl:CoSSL",
    "boss": "daso.methods.variants.boss:BOSS",
    "usadtm": "daso.methods.usadtm:USADTM",
    "mixtureteacher": "daso.methods.mixture_teacher:MixtureTeacher",
}
ADDITIONS = {
    "la": "daso.losses.logit_adjusted:LogitAdjusted",
    "ldam": "daso.losses.ldam:LDAM",
    "class-balanced": "daso.losses.class_balanced:ClassBalanced",
    "align": "daso.refine.align:Align",
    "sharpen": "daso.refine.sharpen:Sharpen",
    "daso": "daso.refine.daso:DASO",
    "darp": "daso.refine.darp:DARP",
    "abc": "daso.terms.abc:ABC",
    "crest": "daso.plans.crest:CReST",
    "crest-plus": "daso.plans.crest:CReSTPlus",
    "crt": "daso.plans.crt:CRT",
    "estimate": "daso.plans.estimate:EstimatePrior",
    "mixture": "daso.readout.part:Mixture",
}
"""Parts that can be added to a method."""

SLOTS = {"labeled loss": "supervised", "refiner": "refine", "term": "terms"}
"""The argument of a method's constructor that takes each kind of part."""


@dataclass(frozen=True)
class Hyperparameter:
    """A keyword-only argument of a part's constructor, with its help from the class's docstring."""

    name: str
    annotation: Any
    default: Any
    part: str
    help: str


@cache
def hyperparameters(part: type) -> tuple[Hyperparameter, ...]:
    """Return the hyper-parameters of a part: the keyword-only arguments that are not slots.

    ``**shared`` stands for those of the base class, except what the class refuses.

    Raises:
        OptionError: an argument has no default, or no type that is known where it stands.
    """
    help_texts = argument_descriptions(inspect.getdoc(part) or "")
    found = []
    for argument in inspect.signature(part).parameters.values():
        if argument.kind is not argument.KEYWORD_ONLY or argument.name in SLOTS.values():
            continue
        declared = {"type": argument.annotation, "default": argument.default}
        missing = [what for what, value in declared.items() if value is argument.empty]
        if missing:
            raise OptionError(
                f"{part.__name__}: the hyper-parameter {argument.name!r} has no "
                f"{' and no '.join(missing)}; write {argument.name}: float = 0.5"
            )
        annotation = argument.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, part.__init__.__globals__)  # type: ignore[misc]
            except NameError as error:
                raise OptionError(
                    f"{part.__name__}: the type of {argument.name!r} is unknown: {error}; "
                    f"import it at the top of the file"
                ) from error
        text = help_texts.get(argument.name, "")
        found.append(
            Hyperparameter(argument.name, annotation, argument.default, part.__name__, text)
        )
    if shares_arguments(part):
        own = {parameter.name for parameter in found}
        found += [
            replace(parameter, part=part.__name__)
            for parameter in hyperparameters(part.__bases__[0])
            if parameter.name not in own | getattr(part, "refuses", {}).keys()
        ]
    return tuple(found)


def shares_arguments(part: type) -> bool:
    """Whether a part's constructor passes keyword arguments on to that of its base class."""
    kinds = [argument.kind for argument in inspect.signature(part).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


@cache
def arguments(part: type) -> dict[str, inspect.Parameter]:
    """Return all arguments of a part's constructor by name, slots and facts included."""
    found = dict(inspect.signature(part).parameters)
    if shares_arguments(part):
        found = {name: each for name, each in found.items() if each.kind is not each.VAR_KEYWORD}
        for name, argument in arguments(part.__bases__[0]).items():
            if argument.kind is argument.KEYWORD_ONLY and name not in getattr(part, "refuses", {}):
                found.setdefault(name, argument)
    return found


def parts_with(option: str) -> list[str]:
    """Return the methods, and the additions after a ``+``, that have a hyper-parameter."""
    places = METHODS | {f"+{name}": place for name, place in ADDITIONS.items()}
    options = {n: {p.name for p in hyperparameters(outline(at))} for n, at in places.items()}
    return [name for name, known in options.items() if option in known]


def name_of(part: type) -> str:
    """Return a part's name in the catalog; the name of its class if it is not listed."""
    names = {place: name for name, place in (METHODS | ADDITIONS).items()}
    return names.get(f"{part.__module__}:{part.__name__}", part.__name__)


class Outline(type):
    """The type of classes that declare what a part declares, without its code."""


@cache
def outline(place: str) -> Any:
    """Return a class that declares what ``module:Class`` declares, read from its source.

    It has the docstring, the attributes that are plain values, the signature of the constructor,
    and outlines of the bases, so ``inspect`` answers as for the class itself. A test compares them.
    """
    module, _, name = place.partition(":")
    tree, names = _module(module)
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    members: dict[str, Any] = {"__module__": module, "__doc__": ast.get_docstring(node)}
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            statement.body = [ast.Pass()]
            statement.args.defaults = []  # of facts, which are always passed
            _execute(statement, names, members)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            with contextlib.suppress(NameError):
                _execute(statement, names, members)
    imports = [each for each in tree.body if isinstance(each, ast.ImportFrom)]
    origins = {alias.name: each.module for each in imports for alias in each.names}
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    outlines = tuple(outline(f"{origins.get(base, module)}:{base}") for base in bases)
    return Outline(name, outlines, members)


@cache
def _module(name: str) -> tuple[ast.Module, dict[str, Any]]:
    """Return the syntax tree of a module and the names that its declarations may use.

    These are imports of the standard library and assignments that need nothing else.
    """
    path = Path(__file__).parents[1].joinpath(*name.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": name}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            if str(node.module).partition(".")[0] in sys.stdlib_module_names:
                _execute(node, names, names)
        elif isinstance(node, ast.Assign):
            with contextlib.suppress(NameError):
                _execute(node, names, names)
    return tree, names


def _execute(node: ast.stmt, names: dict[str, Any], into: dict[str, Any]) -> None:
    # Annotations stay text: compile takes over this module's import from __future__.
    tree = ast.fix_missing_locations(ast.Module([node], []))
    exec(compile(tree, "<outline>", "exec"), names, into)


def load(part: type) -> Any:
    """Import the class that an outline stands for; any other class is returned as it is."""
    if not isinstance(part, Outline):
        return part
    return getattr(importlib.import_module(part.__module__), part.__name__)


def argument_descriptions(doc: str) -> Mapping[str, str]:
    """Return the descriptions in the ``Args:`` section of a docstring, by name."""
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
