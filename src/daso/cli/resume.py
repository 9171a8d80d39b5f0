"""``daso resume``: go on with a run that was stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from daso.cli.progress import follow
from daso.cli.train import announce, conclude
from daso.train.run import resume_run


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a run from its newest whole checkpoint; it ends as if it had never been stopped."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The run folder."""


def run(argv: Sequence[str]) -> None:
    """Resume as the arguments say."""
    command = tyro.cli(ResumeCommand, args=list(argv), prog="daso resume")
    prepared, rows = resume_run(command.folder, lambda message: print(f"daso: {message}", file=sys.stderr))
    announce(prepared, command.folder)
    training = prepared.training
    print(f"going on from step {training.step:,}", file=sys.stderr)
    follow(rows, total=prepared.config.train.steps, done=training.step, label=prepared.config.method)
    conclude(prepared, command.folder)
