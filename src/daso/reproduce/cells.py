"""From the cells of tables to the different runs that fill them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daso.errors import OptionError
from daso.presets.benchmarks import PRESETS
from daso.reproduce.paper_tables import TableColumn, TableRow, Variant, variant


@dataclass(frozen=True)
class Cell:
    """One run of a campaign.

    Attributes:
        preset: name of the setting.
        variant: what is trained.
        seed: of everything.
    """

    preset: str
    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.preset} {self.variant.name} seed {self.seed}"


def table_cells(
    parts: Iterable[tuple[Iterable[TableRow], Sequence[TableColumn]]], seeds: Iterable[int]
) -> tuple[list[Cell], list[str]]:
    """Return the different runs that fill cells of tables, and why some rows have none.

    Args:
        parts: rows and columns of each table.
        seeds: runs of each cell; all cells of one seed come before those of the next.
    """
    variants: dict[tuple[str, str], tuple[str, Variant]] = {}
    refused: dict[str, None] = {}
    for rows, columns in parts:
        for column, row in itertools.product(columns, rows):
            if row.method is None:
                continue
            try:
                found = variant(row, PRESETS[column.preset])
                variants.setdefault((column.preset, found.name), (column.preset, found))
            except OptionError as error:
                refused[f"{row.label}: {error}"] = None
    cells = [
        Cell(preset, found, seed)
        for seed in dict.fromkeys(seeds)
        for preset, found in variants.values()
    ]
    return cells, list(refused)
