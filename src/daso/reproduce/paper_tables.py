"""The tables of the DASO paper: the run behind each cell, and the paper's number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from daso.presets.benchmarks import Preset

Measure = Literal["median_of_last", "last"]


Number = tuple[float, float | None]
"""A mean in %, and the standard deviation over runs where the paper gives one."""


@dataclass(frozen=True)
class TableRow:
    """One method of a table.

    Attributes:
        text: the method, its options and ``logit-adjusted``, as in ``paper.md``.
        logit_adjusted: whether the accuracy is measured after post-hoc logit adjustment.
    """

    label: str
    text: str
    method: str | None
    options: Mapping[str, Any]
    logit_adjusted: bool

    @property
    def names(self) -> set[str]:
        """Names that select the row, in lower case: label, method, method with options."""
        return {name.lower() for name in (self.label, self.method, self.text) if name}


@dataclass(frozen=True)
class TableColumn:
    """One setting of a table, its text in ``paper.md``, and the accuracy that is reported."""

    text: str
    preset: str
    measure: Measure


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, or a part of one.

    Attributes:
        numbers: the paper's, by row label and column text; some cells have none.
    """

    number: int
    title: str
    rows: tuple[TableRow, ...]
    columns: tuple[TableColumn, ...]
    numbers: Mapping[tuple[str, str], Number]

    def part(self, rows: Iterable[TableRow], columns: Iterable[TableColumn]) -> PaperTable:
        """Return the table with these rows and columns only."""
        return replace(self, rows=tuple(rows), columns=tuple(columns))


@dataclass(frozen=True)
class Variant:
    """What is trained for a row in a setting.

    Attributes:
        options: hyper-parameters, those of the setting included.
        name: the method and the options that differ from its defaults in this setting; equal names
            are equal runs.
    """

    method: str
    options: Mapping[str, Any]
    name: str


def variant(row: TableRow, preset: Preset) -> Variant:
    """Return the method and options of a row in a setting.

    Raises:
        OptionError: the method is unknown.
    """
    from daso.compose import Recipe  # imports torch, which the tables themselves do not need

    assert row.method is not None
    method = preset.method_for(row.method)
    setting = preset.options_for(method)
    parameters = Recipe.parse(method).hyperparameters()
    standard = {name: p.default for name, p in parameters.items()} | setting
    changed = {name: value for name, value in row.options.items() if standard.get(name) != value}
    name = ",".join([method, *(f"{name}={value}" for name, value in sorted(changed.items()))])
    return Variant(method, {**setting, **row.options}, name)


@cache
def paper_tables() -> dict[int, PaperTable]:
    """Return the paper's tables by number, read from ``paper.md``."""
    text = files("daso.reproduce").joinpath("paper.md").read_text(encoding="utf-8")
    tables = re.findall(r"^## Table (\d+): (.+)$((?:\n(?!## ).*)*)", text, re.MULTILINE)
    return {int(number): _table(int(number), title, body) for number, title, body in tables}


def _table(number: int, title: str, body: str) -> PaperTable:
    lines = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("|")]
    header, _, *content = [[cell.strip() for cell in line] for line in lines]
    measures: dict[bool, Measure] = {True: "last", False: "median_of_last"}
    columns = tuple(
        TableColumn(text, text.removesuffix(" last"), measures[text.endswith(" last")])
        for text in header[2:]
    )
    rows, numbers = [], {}
    for label, method, *cells in content:
        rows.append(_row(label, method))
        for column, cell in zip(columns, cells, strict=True):
            if cell != "-":
                mean, _, std = cell.partition(" ± ")
                numbers[label, column.text] = float(mean), float(std) if std else None
    return PaperTable(number, title, tuple(rows), columns, numbers)


def _row(label: str, text: str) -> TableRow:
    method, *words = text.split()
    options = dict(word.split("=") for word in words if "=" in word)
    values = {name: _value(value) for name, value in options.items()}
    name = None if method == "-" else method
    return TableRow(label, text, name, values, "logit-adjusted" in words)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text
