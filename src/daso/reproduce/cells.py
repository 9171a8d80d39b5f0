"""Select cells of tables, find the distinct runs that fill them, and run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from daso.errors import OptionError, nearest
from daso.presets.benchmarks import PRESETS
from daso.reproduce.paper_tables import PaperTable, TableRow, Variant, paper_tables, variant


@dataclass(frozen=True)
class Cell:
    """One run of a campaign."""

    preset: str
    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.preset} {self.variant.name} seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt: the accuracy in %, or why the cell is not complete.

    ``"in use"``: another process runs the cell; ``"stopped"``: a signal stopped it, and it can be
    resumed.
    """

    state: Literal["complete", "in use", "stopped", "failed"]
    message: str


def table_cells(tables: Iterable[PaperTable], seeds: Iterable[int]) -> tuple[list[Cell], list[str]]:
    """Return the distinct runs that fill cells, seed by seed, and why some rows have none."""
    variants: dict[tuple[str, str], Variant] = {}
    refused: dict[str, None] = {}
    for table in tables:
        for column, row in itertools.product(table.columns, table.rows):
            if row.method is None:
                continue
            try:
                trained = variant(row, PRESETS[column.preset])
                variants.setdefault((column.preset, trained.name), trained)
            except OptionError as error:
                refused[f"{row.label}: {error}"] = None
    chosen = [(preset, trained) for (preset, _), trained in variants.items()]
    cells = [Cell(*pair, seed) for seed in dict.fromkeys(seeds) for pair in chosen]
    return cells, list(refused)


def select(tables: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> list[PaperTable]:
    """Return the parts of tables that have the named rows and columns; no name selects all.

    Raises:
        OptionError: a table, row or column is unknown; the nearest one is named.
    """
    asked = {"row": rows, "column": columns}
    by_name = {str(number): table for number, table in paper_tables().items()}
    for name in tables:
        if name not in by_name:
            raise OptionError(f"unknown table {name!r}; choose from {', '.join(by_name)}, figures")
    chosen = [by_name[name] for name in dict.fromkeys(tables)]
    row_names = {id(row): _names(row, table) for table in chosen for row in table.rows}
    presets = {column.preset for table in chosen for column in table.columns}
    valid = {"row": set().union(*row_names.values()), "column": presets}
    selected = {kind: {name.lower() for name in names} for kind, names in asked.items()}
    for kind, names in asked.items():
        for name in names:
            if name.lower() not in valid[kind]:
                hint = nearest(name.lower(), sorted(valid[kind]))
                raise OptionError(f"unknown {kind} {name!r}; --list shows them all.{hint}")
    parts = []
    for table in chosen:
        kept_rows = [r for r in table.rows if not rows or selected["row"] & row_names[id(r)]]
        kept = [c for c in table.columns if not columns or c.preset in selected["column"]]
        parts.append(table.part(kept_rows, kept))
    return [part for part in parts if part.rows and part.columns]


def _names(row: TableRow, table: PaperTable) -> set[str]:
    """Return the names that select a row: its own, and those of its runs."""
    cells, _ = table_cells([table.part([row], table.columns)], [0])
    return row.names | {cell.variant.name.lower() for cell in cells}


def run_cells(
    cells: Sequence[Cell],
    attempts: Callable[[Sequence[Cell]], Iterator[tuple[Cell, Outcome]]],
    report: Callable[[Cell, Outcome], None],
) -> list[tuple[Cell, Outcome]]:
    """Run cells; try those that other processes run again at the end.

    Args:
        attempts: runs cells in any order and yields their outcomes; once a cell was stopped, it
            starts no other.
        report: called with the outcome of each cell that completed or failed.

    Returns:
        The cells that are not complete, and why.
    """
    incomplete: list[tuple[Cell, Outcome]] = []
    waiting = list(cells)
    while waiting:
        in_use: list[tuple[Cell, Outcome]] = []
        for cell, outcome in attempts(waiting):
            if outcome.state == "in use":
                in_use.append((cell, outcome))
                continue
            if outcome.state != "stopped":
                report(cell, outcome)
            if outcome.state != "complete":
                incomplete.append((cell, outcome))
        stopped = any(outcome.state == "stopped" for _, outcome in incomplete)
        if stopped or len(in_use) == len(waiting):
            return incomplete + in_use
        waiting = [cell for cell, _ in in_use]
    return incomplete
