"""``daso methods``: what methods are made of, and what goes with what."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from daso.cli.terminal.parse import parse, plain_text
from daso.cli.terminal.tables import wide_console
from daso.compose import ADDITIONS, LOSSES, METHODS, PLANS, REFINERS, TERMS, Recipe
from daso.errors import OptionError
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Method
from daso.parts import Part
from daso.plans.plan import Plan
from daso.refine.guess import Refiner
from daso.terms.term import Term

KINDS: dict[str, Mapping[str, type[Part]]] = {
    "method": METHODS,
    "labelled loss": LOSSES,
    "refiner": REFINERS,
    "term": TERMS,
    "plan": PLANS,
}


OPTIONS = {
    "sampling": {
        "class-balanced": {
            "class": "--labeled-sampling class-balanced",
            "description": "Every class gives as many labelled images to a batch as any other.",
            "paper": "Kang et al., ICLR 2020, arXiv 1910.09217",
        },
        "effective-number": {
            "class": "--labeled-sampling effective-number",
            "description": "A labelled image is drawn in inverse proportion to the effective number of its class.",
            "paper": "Cui et al., CVPR 2019, arXiv 1901.05555",
        },
    },
    "at test time": {
        "logit-adjusted": {
            "class": "measured beside every run; daso predict --logit-adjusted",
            "description": "The log prior of the labelled images is taken off the logits of a trained network.",
            "paper": "Menon et al., ICLR 2021, arXiv 2007.07314",
        },
    },
}
"""What goes with every method and is no part of its name."""


@dataclass(frozen=True)
class MethodsCommand:
    """List the methods and the parts that can be added to them, and what goes with what."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """Show the parts and hyper-parameters of this method, composed or not: fixmatch+daso."""
    json: bool = False
    """Print JSON."""


def kind_of(part: type[Part]) -> str:
    """Return what kind of part a class is."""
    bases: dict[str, type[Part]] = {
        "method": Method,
        "labelled loss": LabeledLoss,
        "refiner": Refiner,
        "term": Term,
        "plan": Plan,
    }
    return next(kind for kind, base in bases.items() if issubclass(part, base))


def describe_part(part: type[Part]) -> dict[str, str]:
    """Return what a part's class says of itself."""
    return {
        "class": part.__name__,
        "description": (inspect.getdoc(part) or "").partition("\n")[0],
        "paper": getattr(part, "paper", ""),
    }


def refusal(method: str, addition: str) -> str | None:
    """Return why an addition does not go with a method, or None if it does, alone or with one more addition."""
    try:
        Recipe.parse(f"{method}+{addition}").hyperparameters()
        return None
    except OptionError as error:
        reason = str(error)
    for other in ADDITIONS:
        try:
            Recipe.parse(f"{method}+{addition}+{other}").hyperparameters()
            return None
        except OptionError:
            continue
    return reason


def reasons_by_method(refused: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for each method and reason, with the additions that it keeps away."""
    lines = []
    for method, reasons in refused.items():
        grouped: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            why = (
                reason.partition(": ")[2]
                or "nothing in it uses what that works out, without align or darp"
            )
            grouped.setdefault(why, []).append(name)
        lines += [f"{method} + {', '.join(names)}: {why}" for why, names in grouped.items()]
    return lines


def describe_all() -> dict[str, Any]:
    """Return every part by kind and name, what else goes with every method, and the additions that each one refuses,
    with the reason."""
    parts = {
        kind: {name: describe_part(p) for name, p in known.items()} for kind, known in KINDS.items()
    }
    refused = {
        method: {
            name: reason for name in ADDITIONS if (reason := refusal(method, name)) is not None
        }
        for method in METHODS
    }
    return {**parts, **OPTIONS, "refused": refused}


def describe_method(name: str) -> dict[str, Any]:
    """Return the parts of a composed method and its hyper-parameters.

    Raises:
        OptionError: a part is unknown, or does not go with the others.
    """
    recipe = Recipe.parse(name)
    hyperparameters = [
        {
            "name": parameter.name,
            "default": parameter.default,
            "part": parameter.part,
            "help": plain_text(parameter.help),
        }
        for parameter in recipe.hyperparameters().values()
    ]
    parts = [
        {"kind": kind_of(part), **describe_part(part)}
        for part in recipe.parts()
        if part is not Plan
    ]
    return {"name": name, "parts": parts, "hyperparameters": hyperparameters}


def _list_parts(everything: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for column in ("name", "kind", "what it is", "paper"):
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "kind"))
    for kind in (*KINDS, *OPTIONS):
        for name, part in everything[kind].items():
            description = part["description"] + (f" ({part['class']})" if kind in OPTIONS else "")
            table.add_row(name, kind, escape(description), escape(part["paper"]))
        table.add_section()
    return table


def _list_compositions(refused: Mapping[str, Mapping[str, str]]) -> Table:
    table = Table(title="METHOD+ADDITION+...", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for method in refused:
        table.add_column(method, justify="center")
    for addition in ADDITIONS:
        table.add_row(
            addition, *("" if addition in reasons else "yes" for reasons in refused.values())
        )
    return table


def run(argv: Sequence[str]) -> None:
    """Show the methods, or one of them, as the arguments say."""
    command = parse(MethodsCommand, argv, "daso methods")
    console = wide_console(120)
    if command.name is None:
        everything = describe_all()
        if command.json:
            print(json.dumps(everything, indent=1))
            return
        console.print(_list_parts(everything))
        console.print(_list_compositions(everything["refused"]))
        print("Not possible:", *reasons_by_method(everything["refused"]), sep="\n  ")
        print(
            "\ndaso methods NAME shows the hyper-parameters; NAME may be composed: fixmatch+la+daso"
        )
        return
    method = describe_method(command.name)
    if command.json:
        print(json.dumps(method, indent=1))
        return
    for part in method["parts"]:
        print(f"{part['class']} ({part['kind']}): {part['description']}")
        if part["paper"]:
            print(f"  {part['paper']}")
    table = Table(box=SIMPLE_HEAD)
    for column in ("option", "default", "part", "what it is"):
        table.add_column(column, overflow="fold")
    for parameter in method["hyperparameters"]:
        default = "worked out" if parameter["default"] is None else str(parameter["default"])
        option = "--" + parameter["name"].replace("_", "-")
        table.add_row(option, escape(default), parameter["part"], escape(parameter["help"]))
    console.print(table)
