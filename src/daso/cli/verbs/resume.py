"""``daso resume``: go on with a run that was stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Literal

import tyro

from daso.cli.processes.signals import Stop
from daso.cli.processes.torchrun import Team, team
from daso.cli.terminal.counters import embedding_progress
from daso.cli.terminal.parse import parse
from daso.cli.training.session import announce, conclude, follow_run
from daso.track import used_before
from daso.train.run import resume_run


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a run from its newest whole checkpoint; it ends as if it had never been stopped."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: str | None = None
    """Another device than the run's: cpu, cuda, mps."""
    on_divergence: Literal["stop", "rollback"] | None = None
    """When a loss or a weight becomes infinite or NaN, stop, or go on from the last checkpoint with half the
    learning rate (default: as the run was told)."""
    quiet: bool = False
    """Show only warnings while it trains, and the result."""


def run(argv: Sequence[str]) -> int:
    """Resume as the arguments say, alone or as one of the processes of torchrun."""
    command = parse(ResumeCommand, argv, "daso resume")
    with team(command.device or "auto") as together:
        return go_on(command, together)


def go_on(command: ResumeCommand, together: Team) -> int:
    """Resume as a command says, together with the other processes if there are any."""
    stop = Stop()
    with together.folder(command.folder, resumed=True) as own:
        resume = partial(
            resume_run,
            own,
            lambda message: print(f"daso: {message}", file=sys.stderr),
            data=command.data,
            device=command.device if together.processes is None else together.device,
            on_divergence=command.on_divergence,
            stop=stop,
            processes=together.processes,
            progress=embedding_progress(),
        )
        prepared, rows = together.prepare(resume, itemgetter(0))
        if prepared.step == prepared.total_steps:
            print(f"{command.folder} is complete", file=sys.stderr)
        elif not command.quiet:
            announce(prepared, command.folder)
            print(f"going on from step {prepared.step:,}", file=sys.stderr)
        track = used_before(command.folder) if together.is_first else ()
        status = follow_run(prepared, rows, own, stop, quiet=command.quiet, track=track)
        if not status and together.is_first:
            conclude(prepared, command.folder)
    return status
