"""A campaign whose cells do something odd to the process that runs them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import torch

from daso.presets.campaign import Outcome


@dataclass
class StubCampaign:
    """Runs texts for cells."""

    def attempt(self, cell: str, watch: object) -> Outcome:
        if cell == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if cell == "long":
            time.sleep(600)
        return Outcome("complete", f"{cell}: {torch.get_num_threads()} thread")
