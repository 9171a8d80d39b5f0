"""``daso resume``: resume a run that was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daso.cli.terminal.arguments import RunArgument
from daso.constraints import Device


@dataclass(frozen=True)
class ResumeCommand:
    """Resume a run from its newest complete checkpoint; it ends as if it had never been stopped."""

    folder: RunArgument
    """The run folder."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: Device | None = None
    """Device in place of the run's: cpu, cuda, mps."""
    on_divergence: Literal["stop", "rollback"] | None = None
    """When a loss or a weight becomes infinite or NaN: stop, or rollback to the last checkpoint
    with half the learning rate (default: as in the run)."""
    quiet: bool = False
    """Show only warnings during the training, and the result."""


def run(command: ResumeCommand) -> int:
    """Resume as the arguments say, alone or as one of the processes of torchrun."""
    from daso.cli.processes.torchrun import team
    from daso.cli.training.session import resume

    with team(command.device or "auto") as together:
        return resume(
            command.folder,
            together,
            data=command.data,
            device=command.device,
            on_divergence=command.on_divergence,
            quiet=command.quiet,
        )
