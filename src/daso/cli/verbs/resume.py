"""``daso resume``: resume a run that was stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from daso.cli.terminal.parse import RunFolder, parse
from daso.constraints import Device

if TYPE_CHECKING:
    from daso.cli.processes.torchrun import Team


@dataclass(frozen=True)
class ResumeCommand:
    """Resume a run from its newest complete checkpoint; it ends as if it had never been stopped."""

    folder: RunFolder
    """The run folder."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: Device | None = None
    """Use another device than the run's: cpu, cuda, mps."""
    on_divergence: Literal["stop", "rollback"] | None = None
    """What to do when a loss or a weight becomes infinite or NaN: stop, or resume from the last checkpoint with half
    the learning rate (default: that of the run)."""
    quiet: bool = False
    """Show only warnings during the training, and the result."""


def run(argv: Sequence[str]) -> int:
    """Resume as the arguments say, alone or as one of the processes of torchrun."""
    command = parse(ResumeCommand, argv, "daso resume")
    from daso.cli.processes.torchrun import team

    with team(command.device or "auto") as together:
        return go_on(command, together)


def go_on(command: ResumeCommand, together: Team) -> int:
    """Resume a run, together with the other processes if there are any."""
    from daso.cli.processes.signals import Stop
    from daso.cli.terminal.counters import embedding_progress
    from daso.cli.training.session import announce, conclude, follow_run
    from daso.track import used_before
    from daso.train.run import resume_run

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
            print(f"resuming from step {prepared.step:,}", file=sys.stderr)
        track = used_before(command.folder) if together.is_first else ()
        status = follow_run(prepared, rows, own, stop, quiet=command.quiet, track=track)
        if not status and together.is_first:
            conclude(prepared, command.folder)
    return status
