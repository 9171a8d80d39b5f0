"""``daso methods``: the methods, the parts to add to them, and what goes with what."""

from __future__ import annotations

import inspect
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from rich.markup import escape

from daso.catalog import ADDITIONS, METHODS, outline
from daso.cli.terminal.parse import Argument, plain_text
from daso.cli.terminal.tables import make_table, print_text, wide_console
from daso.compose import Recipe
from daso.errors import OptionError, flag

OPTIONS = {
    "sampling": {
        "class-balanced": {
            "class": "--labeled-sampling class-balanced",
            "description": "Draw labeled images of all classes equally often.",
            "paper": "Kang et al., ICLR 2020, arXiv 1910.09217",
        },
        "effective-number": {
            "class": "--labeled-sampling effective-number",
            "description": "Draw labeled images by the inverse effective number of their class.",
            "paper": "Cui et al., CVPR 2019, arXiv 1901.05555",
        },
    },
    "at test time": {
        "logit-adjusted": {
            "class": "measured beside every run; daso predict --logit-adjusted",
            "description": "Subtract the log prior of the labeled images from the logits.",
            "paper": "Menon et al., ICLR 2021, arXiv 2007.07314",
        }
    },
}
"""Options that go with every method and are not part of its name, by kind."""


@dataclass(frozen=True)
class MethodsCommand:
    """List the methods, the parts that can be added to them, and what goes with what."""

    name: Annotated[str | None, Argument("NAME", positional=True)] = None
    """Show the parts and hyper-parameters of this method, for example fixmatch+daso."""
    json: bool = False
    """Print JSON."""


def describe_part(part: type[Any]) -> dict[str, str]:
    """Return class, summary and paper of a part."""
    summary = (inspect.getdoc(part) or "").partition("\n")[0]
    return {"class": part.__name__, "description": summary, "paper": part.paper}


def refusal(method: str, addition: str) -> str | None:
    """Return why an addition does not go with a method; None if it does, perhaps with another."""
    reason = None
    for name in (addition, *(f"{addition}+{other}" for other in ADDITIONS)):
        try:
            Recipe.parse(f"{method}+{name}").hyperparameters()
        except OptionError as error:
            reason = reason or str(error)
        else:
            return None
    return reason


def describe_all() -> dict[str, Any]:
    """Return all parts by kind and name, further options, and what methods refuse."""
    kinds: dict[str, Any] = defaultdict(dict)
    for name, place in (METHODS | ADDITIONS).items():
        part = outline(place)
        kinds[part.kind][name] = describe_part(part)
    reasons = {method: {name: refusal(method, name) for name in ADDITIONS} for method in METHODS}
    refused = {
        method: {name: reason for name, reason in each.items() if reason is not None}
        for method, each in reasons.items()
    }
    return {**kinds, **OPTIONS, "refused": refused}


def describe_method(name: str) -> dict[str, Any]:
    """Return the parts and hyper-parameters of a composed method.

    An addition alone, such as "+daso", is shown with the first method that it goes with.

    Raises:
        OptionError: a part is unknown, or does not go with the others.
    """
    if name.removeprefix("+") in ADDITIONS:
        addition = name.removeprefix("+")
        method = next((one for one in METHODS if refusal(one, addition) is None), "")
        name = f"{method}+{addition}"
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
    parts = [{"kind": part.kind, **describe_part(part)} for part in recipe.parts()]
    return {"name": name, "parts": parts, "hyperparameters": hyperparameters}


def run(command: MethodsCommand) -> None:
    """Show all methods, or one of them."""
    described = describe_all() if command.name is None else describe_method(command.name)
    if command.json:
        print(json.dumps(described, indent=1))
    elif command.name is None:
        _print_all(described)
    else:
        _print_method(described)


def _print_all(described: dict[str, Any]) -> None:
    refused = described["refused"]
    parts = make_table(("name", "kind", "what it does", "paper"), left=4)
    for column in parts.columns[:2]:
        column.no_wrap = True
    for kind, members in described.items():
        if kind == "refused":
            continue
        for name, part in members.items():
            description = part["description"] + (f" ({part['class']})" if kind in OPTIONS else "")
            parts.add_row(name, kind, escape(description), escape(part["paper"]))
        parts.add_section()

    compositions = make_table(("", *refused), "METHOD+ADDITION+...")
    for column in compositions.columns[1:]:
        column.justify = "center"
    for addition in ADDITIONS:
        answers = ["" if addition in reasons else "yes" for reasons in refused.values()]
        compositions.add_row(addition, *answers)

    console = wide_console(120)
    console.print(parts)
    console.print(compositions)
    print_text("Not possible:", *(f"  {line}" for line in _refusals(refused)))
    print_text("\ndaso methods NAME shows hyper-parameters; NAME may be composed: fixmatch+la+daso")


def _refusals(refused: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = []
    for method, reasons in refused.items():
        additions = defaultdict(list)
        for name, reason in reasons.items():
            additions[reason.partition(": ")[2]].append(name)
        lines += [f"{method} + {', '.join(names)}: {why}" for why, names in additions.items()]
    return lines


def _print_method(described: dict[str, Any]) -> None:
    for part in described["parts"]:
        print_text(f"{part['class']} ({part['kind']}): {part['description']}")
        if part["paper"]:
            print_text(f"  {part['paper']}")
    table = make_table(("option", "default", "part", "what it is"), left=4)
    for parameter in described["hyperparameters"]:
        default = "computed" if parameter["default"] is None else str(parameter["default"])
        option, text = flag(parameter["name"]), escape(parameter["help"])
        table.add_row(option, escape(default), parameter["part"], text)
    wide_console(120).print(table)
