"""Campaigns on a few images and steps: what their tests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from daso.files import Row
from daso.presets.benchmarks import PRESETS
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, Outcome, run_cells
from daso.reproduce.paper_tables import TableColumn, TableRow, paper_tables, variant

PRESET = "cifar10-n500-g100"
COLUMN = TableColumn(PRESET, PRESET, "median_of_last")


def rows_of(number: int, *methods: str) -> list[TableRow]:
    return [row for row in paper_tables()[number].rows if row.text in methods]


def consume(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
    for _ in rows:
        pass


def train_nothing(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
    pytest.fail(f"{cell} was trained")


def in_turn(campaign: Campaign, watch: Any = consume) -> Any:
    def attempts(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        return ((cell, campaign.attempt(cell, watch)) for cell in cells)

    return attempts


def run(
    campaign: Campaign, cells: Sequence[Cell], watch: Any = consume
) -> list[tuple[Cell, Outcome]]:
    return run_cells(cells, in_turn(campaign, watch), lambda cell, outcome: None)


def cell_of(method: str, seed: int = 0, **options: object) -> Cell:
    row = TableRow(method, method, method, options, False)
    return Cell(PRESET, variant(row, PRESETS[PRESET]), seed)
