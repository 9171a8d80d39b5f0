"""A process that works on a campaign and leaves a note of every training that it begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, Outcome, run_cells


def work(campaign: Campaign, cells: list[Cell], notes: Path, barrier: Any) -> None:
    def watch(cell: Cell, prepared: object, rows: Iterator[object]) -> None:
        for number, _ in enumerate(rows):
            if number == 0:
                (notes / f"{os.getpid()}-{cell}").touch()

    def attempts(cells: Any) -> Iterator[tuple[Cell, Outcome]]:
        return ((cell, campaign.attempt(cell, watch)) for cell in cells)

    barrier.wait()
    run_cells(cells, attempts, lambda cell, outcome: None)
