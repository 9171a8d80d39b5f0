"""``daso plot``: draw the pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from daso.report.plots import draw_run


@dataclass(frozen=True)
class PlotCommand:
    """Draw the pictures of a run, complete or not, into its plots folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The run folder."""


def run(argv: Sequence[str]) -> None:
    """Draw as the arguments say."""
    command = tyro.cli(PlotCommand, args=list(argv), prog="daso plot")
    for path in draw_run(command.folder):
        print(path)
