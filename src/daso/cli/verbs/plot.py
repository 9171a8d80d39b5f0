"""``daso plot``: draw the pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daso.cli.terminal.arguments import RunArgument
from daso.cli.terminal.parse import parse


@dataclass(frozen=True)
class PlotCommand:
    """Draw the pictures of a run, complete or not, into its plots folder."""

    folder: RunArgument
    """The run folder."""


def run(argv: Sequence[str]) -> None:
    """Draw the pictures."""
    command = parse(PlotCommand, argv, "daso plot")
    from daso.report.figures.draw import draw_run

    for path in draw_run(command.folder):
        print(path)
