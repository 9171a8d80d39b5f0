"""A campaign whose cells do something odd to the process that runs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from forked import fork_instead_of_spawning

from daso.cli.processes.workers import Workers
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Outcome


@dataclass
class StubCampaign:
    """Runs texts for cells; those that run until they are asked to stop leave a file, and another one then."""

    folder: Path = Path()

    def attempt(self, cell: str, watch: object, stop: Callable[[], bool]) -> Outcome:
        if cell == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if cell == "long":
            time.sleep(600)
        if cell.startswith("until"):
            (self.folder / f"{cell}.{os.getpid()}").touch()
            while not stop():
                time.sleep(0.01)
            (self.folder / f"{cell}.saved").touch()
            return Outcome("stopped", cell)
        return Outcome("complete", f"{cell}: {torch.get_num_threads()} thread")


def run(folder: Path) -> None:
    """Run a campaign that ends when it is asked to stop."""
    fork_instead_of_spawning()
    campaign: Any = StubCampaign(folder)
    cells: Any = ["until-1", "until-2", "until-3"]
    with Workers(cast(Campaign, campaign), 2) as workers:
        list(workers.attempts(cells))
