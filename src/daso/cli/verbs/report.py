"""``daso report``: one HTML file that shows what a run believes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from daso.cli.terminal.parse import parse
from daso.errors import OptionError
from daso.report.html.page import write_report


@dataclass(frozen=True)
class ReportCommand:
    """Write the report of a run, complete or not, as one HTML file that needs nothing else to be looked at."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    out: Path | None = None
    """The HTML file; report.html in the run folder if it is left out."""
    refresh: bool = False
    """First look at the images anew with the run's last checkpoint, for galleries, map and what to label next as of
    now; it needs the run's data. Without it they are as of when the training wrote them last."""
    data: Path | None = None
    """With --refresh: where the run's images are now, if they have moved."""
    device: str | None = None
    """With --refresh: another device than the run's: cpu, cuda, mps."""


def run(argv: Sequence[str]) -> None:
    """Write the report as the arguments say."""
    command = parse(ReportCommand, argv, "daso report")
    for name in ("data", "device"):
        if getattr(command, name) is not None and not command.refresh:
            raise OptionError(
                f"--{name} goes with --refresh: a report alone reads nothing but the run folder"
            )
    if command.refresh:
        # Only here is what trains imported: a report alone takes a second or two.
        refresh = importlib.import_module("daso.train.beliefs.schedule")
        progress = importlib.import_module("daso.cli.terminal.counters").embedding_progress()
        step = refresh.refresh_beliefs(
            command.folder, _notice, data=command.data, device=command.device, progress=progress
        )
        _notice(f"looked at the images with the checkpoint of step {step:,}")
    for path in write_report(command.folder, command.out):
        print(path)


def _notice(message: str) -> None:
    print(f"daso: {message}", file=sys.stderr)
