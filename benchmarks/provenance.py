"""What a row of a results file says of where and how it was measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from daso.train.folder.environment import describe_environment


def provenance(threads: int | None = None) -> dict[str, Any]:
    """Return columns: commit, hardware with the number of threads, torch, the machine's load and the command.

    A library that was loaded before all others, an allocator say, is named before the command.

    Args:
        threads: of the measured processes; None: of this one.
    """
    found = describe_environment(torch.device("cpu"))
    preloaded = os.environ.get("LD_PRELOAD")
    under = f"LD_PRELOAD={Path(preloaded).name} " if preloaded else ""
    return {
        "commit": found["commit"],
        "hardware": f"{found['hardware']}, {threads or found['threads']} thread(s)",
        "torch": found["torch"],
        "load": round(os.getloadavg()[0], 1),
        "command": under + found["command"],
    }
