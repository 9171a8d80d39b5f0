"""``daso plot``: draw the pictures of a run."""

from __future__ import annotations

from dataclasses import dataclass

from daso.cli.terminal.arguments import RunArgument


@dataclass(frozen=True)
class PlotCommand:
    """Draw the pictures of a run, complete or not, into its plots folder."""

    folder: RunArgument
    """The run folder."""


def run(command: PlotCommand) -> None:
    """Draw the pictures."""
    from daso.report.figures.draw import draw_run

    for path in draw_run(command.folder):
        print(path)
