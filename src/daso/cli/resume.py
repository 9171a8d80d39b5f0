"""``daso resume``: go on with a run that was stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from daso.cli.train import announce, conclude, follow_run
from daso.track import used_before
from daso.train.run import resume_run


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a run from its newest whole checkpoint; it ends as if it had never been stopped."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: str | None = None
    """Another device than the run's: cpu, cuda, mps."""
    quiet: bool = False
    """Show only warnings while it trains, and the result."""


def run(argv: Sequence[str]) -> None:
    """Resume as the arguments say."""
    command = tyro.cli(ResumeCommand, args=list(argv), prog="daso resume")
    prepared, rows = resume_run(
        command.folder,
        lambda message: print(f"daso: {message}", file=sys.stderr),
        data=command.data,
        device=command.device,
    )
    if prepared.step == prepared.total_steps:
        print(f"{command.folder} is complete", file=sys.stderr)
    elif not command.quiet:
        announce(prepared, command.folder)
        print(f"going on from step {prepared.step:,}", file=sys.stderr)
    follow_run(prepared, rows, command.folder, quiet=command.quiet, track=used_before(command.folder))
    conclude(prepared, command.folder)
