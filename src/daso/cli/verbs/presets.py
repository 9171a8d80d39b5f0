"""``daso presets``: the benchmark settings by name."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import wide_console
from daso.data.longtail import Indices
from daso.errors import OptionError
from daso.presets.benchmarks import PRESETS, Preset, meant
from daso.reproduce.paper_tables import paper_tables
from daso.reproduce.resolve import resolve


@dataclass(frozen=True)
class PresetsCommand:
    """List the benchmark settings: each name can be given to daso train in place of a source."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """Show everything that holds in this one, and who decides it."""
    method: str = "fixmatch+daso"
    """Of which a training is shown."""
    json: bool = False
    """Print JSON."""


def _tables_of(preset: Preset) -> list[int]:
    tables = paper_tables().values()
    return [t.number for t in tables if preset.name in {column.preset for column in t.columns}]


def _count(counts: Indices | None) -> dict[str, int] | None:
    if counts is None:
        return None
    return {
        "images": int(counts.sum()),
        "largest": int(counts.max()),
        "smallest": int(counts.min()),
    }


def describe(preset: Preset, method: str | None = None) -> dict[str, Any]:
    """Return what a preset is and everything that it sets, as JSON values; what it leaves open is left out.

    Args:
        preset: the setting.
        method: its training is resolved in full, and told as ``training_of`` and ``resolved``: group to name to
            value and who decided it.
    """
    values = dataclasses.asdict(preset.defaults)
    split = {name: value for name, value in values.pop("split").items() if value is not None}
    defaults = {name: value for name, value in values.items() if value not in (None, {})}
    described = {
        "name": preset.name,
        "title": preset.title,
        "source": preset.source,
        "classes": preset.num_classes,
        "labelled": _count(preset.labeled_counts()),
        "unlabelled": _count(preset.unlabeled_counts()),
        "mismatched": preset.mismatched,
        "tables": _tables_of(preset),
        **split,
        **defaults,
        "dist_temperature": preset.dist_temperature,
    }
    if method is None:
        return described
    name, resolved = resolve(preset, method)
    groups: dict[str, dict[str, Any]] = {}
    for item in resolved:
        groups.setdefault(item.group, {})[item.name] = {
            "value": item.value,
            "decided_by": item.decided_by,
        }
    return {**described, "training_of": name, "resolved": groups}


def _print_one(preset: Preset, method: str) -> None:
    described = describe(preset)
    for key in (
        "name",
        "title",
        "source",
        "classes",
        "labelled",
        "unlabelled",
        "mismatched",
        "tables",
    ):
        value = described[key]
        if isinstance(value, dict):
            value = ", ".join(f"{number:,} {what}" for what, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print(f"{key:<24} {'the source has its own' if value is None else value}")
    if preset.pretrained:
        print(f"{'weights':<24} ImageNet's in the paper: --weights FILE, random ones without")
    name, resolved = resolve(preset, method)
    print(f"\na training of {name} there, and who decides what:")
    for group, items in itertools.groupby(resolved, key=lambda item: item.group):
        print(f"\n{group}")
        for item in items:
            value = (
                f"{item.value:,}"
                if isinstance(item.value, int) and item.value > 9999
                else str(item.value)
            )
            print(f"  {item.name:<22} {value:<16} {item.decided_by}")
    print(
        f"\ndaso train {preset.name} --method {method}; any option on the command line goes before these values"
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
    table = Table(box=SIMPLE_HEAD)
    for column in (
        "preset",
        "source",
        "labelled",
        "unlabelled",
        "gamma_l",
        "gamma_u",
        "T_dist",
        "steps",
    ):
        table.add_column(column, justify="left" if column in ("preset", "source") else "right")
    table.add_column("network")
    table.add_column("tables")
    for preset in PRESETS.values():
        totals = [
            "own" if counts is None else f"{counts.sum():,}"
            for counts in (preset.labeled_counts(), preset.unlabeled_counts())
        ]
        table.add_row(
            preset.name,
            preset.source,
            *totals,
            *_gammas(preset),
            f"{preset.dist_temperature:g}",
            f"{preset.defaults.steps:,}",
            preset.defaults.network,
            _ranges(_tables_of(preset)),
        )
    return table


def run(argv: Sequence[str]) -> None:
    """Show the presets, or one of them, as the arguments say."""
    command = parse(PresetsCommand, argv, "daso presets")
    if command.name is not None and command.name not in PRESETS:
        raise OptionError(f"there is no preset {command.name!r}.{meant(command.name)}")
    if command.json:
        shown = (
            [describe(preset) for preset in PRESETS.values()]
            if command.name is None
            else describe(PRESETS[command.name], command.method)
        )
        print(json.dumps(shown, indent=1))
        return
    if command.name is None:
        wide_console(145).print(_table())
        print(
            "own: the source's images as they are. tables: of the DASO paper, with this setting as a column."
        )
        return
    _print_one(PRESETS[command.name], command.method)
