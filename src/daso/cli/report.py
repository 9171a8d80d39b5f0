"""``daso report``: one HTML file that shows what a run believes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from daso.report.html.page import write_report


@dataclass(frozen=True)
class ReportCommand:
    """Write the report of a run, complete or not, as one HTML file that needs nothing else to be looked at."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    out: Path | None = None
    """The HTML file; report.html in the run folder if it is left out."""


def run(argv: Sequence[str]) -> None:
    """Write the report as the arguments say."""
    command = tyro.cli(ReportCommand, args=list(argv), prog="daso report")
    for path in write_report(command.folder, command.out):
        print(path)
