"""``daso presets``: the benchmark settings by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from rich.table import Table

from daso.cli.terminal.parse import Argument
from daso.cli.terminal.tables import make_table, print_text, wide_console
from daso.data.longtail import Indices
from daso.errors import OptionError
from daso.presets.benchmarks import PRESETS, Preset, meant
from daso.reproduce.paper_tables import paper_tables


@dataclass(frozen=True)
class PresetsCommand:
    """List the benchmark settings: each name can be given to daso train in place of a source."""

    name: Annotated[str | None, Argument("NAME", positional=True)] = None
    """Show all values of this preset, and what decides each."""
    method: str = "fixmatch+daso"
    """Method whose training is shown."""
    json: bool = False
    """Print JSON."""


def _count(counts: Indices | None) -> dict[str, int] | None:
    if counts is None:
        return None
    numbers = {"images": counts.sum(), "largest": counts.max(), "smallest": counts.min()}
    return {name: int(number) for name, number in numbers.items()}


def describe(preset: Preset) -> dict[str, Any]:
    """Return what a preset is and everything that it sets, as JSON values."""
    defaults = preset.defaults
    split = {name: value for name, value in vars(defaults.split).items() if value is not None}
    return {
        "name": preset.name,
        "title": preset.title,
        "source": preset.source,
        "classes": preset.num_classes,
        "labeled": _count(preset.labeled_counts()),
        "unlabeled": _count(preset.unlabeled_counts()),
        "mismatched": preset.mismatched,
        "tables": [
            table.number
            for table in paper_tables().values()
            if preset.name in {column.preset for column in table.columns}
        ],
        **split,
        **defaults.options,
        **defaults.semi_supervised,
        **defaults.resizes_first,
        **{f"supervised_{n}": v for n, v in defaults.supervised.items() if n == "steps"},
        **{name: value for part in defaults.parts.values() for name, value in part.items()},
        "dist_temperature": preset.dist_temperature,
    }


def describe_training(preset: Preset, method: str) -> dict[str, Any]:
    """Return all values of a training in a preset and who decided each, by group and name."""
    # Values that the method computes come from the method itself, and with it torch.
    from daso.reproduce.resolve import resolve

    name, resolved = resolve(preset, method)
    groups: dict[str, dict[str, Any]] = {}
    for item in resolved:
        decision = {"value": item.value, "decided_by": item.decided_by}
        groups.setdefault(item.group, {})[item.name] = decision
    return {"training_of": name, "resolved": groups}


def _print_one(preset: Preset, method: str) -> None:
    described = describe(preset)
    training = describe_training(preset, method)
    keys = ("name", "title", "source", "classes", "labeled", "unlabeled", "mismatched", "tables")
    for key in keys:
        value = described[key]
        if isinstance(value, dict):
            value = ", ".join(f"{number:,} {what}" for what, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print_text(f"{key:<24} {'those of the source' if value is None else value}")
    if preset.pretrained:
        print_text(f"{'weights':<24} ImageNet's in the paper: --weights FILE; random without")
    print_text(f"\ntraining of {training['training_of']}, and who decides each value:")
    for group, items in training["resolved"].items():
        print(f"\n{group}")
        for name, item in items.items():
            value = item["value"]
            shown = f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
            print_text(f"  {name:<22} {shown:<16} {item['decided_by']}")
    print_text(
        f"\ndaso train {preset.name} --method {method}; options on the command line override "
        "these values"
    )


def _gammas(preset: Preset) -> tuple[str, str]:
    split = preset.defaults.split
    labeled = "-" if split.gamma_labeled is None else f"{split.gamma_labeled:g}"
    if split.gamma_unlabeled is None:
        return labeled, "unknown"
    inverse = {"uniform": "1", "reversed": f"1/{split.gamma_unlabeled:g}"}
    return labeled, inverse.get(split.unlabeled_shape or "consistent", f"{split.gamma_unlabeled:g}")


def _ranges(numbers: Sequence[int]) -> str:
    """Write rising numbers briefly: 1 5-8 11."""
    ends: list[list[int]] = []
    for number in numbers:
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in ends)


def _table() -> Table:
    numbers = ("labeled", "unlabeled", "gamma_l", "gamma_u", "T_dist", "steps")
    table = make_table(("preset", "source", *numbers, "network", "tables"), left=2)
    for column in table.columns[-2:]:
        column.justify = "left"
    for preset in PRESETS.values():
        described = describe(preset)
        totals = [described[pool] for pool in ("labeled", "unlabeled")]
        table.add_row(
            preset.name,
            preset.source,
            *("own" if counts is None else f"{counts['images']:,}" for counts in totals),
            *_gammas(preset),
            f"{preset.dist_temperature:g}",
            f"{described['steps']:,}",
            described["network"],
            _ranges(described["tables"]),
        )
    return table


def run(command: PresetsCommand) -> None:
    """Show the presets, or one of them, as the arguments say."""
    if command.name is None:
        if command.json:
            print(json.dumps([describe(preset) for preset in PRESETS.values()], indent=1))
            return
        wide_console(145).print(_table())
        print_text("own: images of the source. tables: those of the DASO paper with the setting.")
        return
    if command.name not in PRESETS:
        raise OptionError(f"unknown preset {command.name!r}.{meant(command.name)}")
    preset = PRESETS[command.name]
    if command.json:
        training = describe_training(preset, command.method)
        print(json.dumps({**describe(preset), **training}, indent=1))
    else:
        _print_one(preset, command.method)
