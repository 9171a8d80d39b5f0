"""What ``torchrun`` does, with processes that are forked from one that has imported daso."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from forked import command, fork_instead_of_spawning, say_into
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def run(words: list[str | Path], size: int, restarts: int, place: Path, stop_at: int) -> None:
    """Run the command line in *size* processes, under torchrun's agent.

    Args:
        words: the command line.
        size: number of processes; one is there without an agent.
        restarts: how often all are started anew after one has died.
        place: gets what they say, and their process identifiers by rank.
        stop_at: step after whose checkpoint the first one is told to stop; 0 for none.
    """
    say_into(place / "said")
    if size == 1:
        one_of_them(words, place, stop_at)
        return
    fork_instead_of_spawning()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
        max_restarts=restarts,
        start_method="forkserver",
        monitor_interval=0.1,
    )
    elastic_launch(config, one_of_them)(words, place, stop_at)


def one_of_them(words: list[str | Path], place: Path, stop_at: int) -> None:
    """Run the command line in float64, where a true difference is larger than rounding."""
    from daso.train import run

    say_into(place / "said")
    rank = os.environ.get("RANK", "0")
    (place / f"process-{rank}").write_text(str(os.getpid()))
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    save = run.save_checkpoint

    def save_and_stop(folder: Path, tensors: object, step: int, *rest: object) -> None:
        save(folder, tensors, step, *rest)
        if step == stop_at and rank == "0":
            os.kill(os.getpid(), signal.SIGTERM)

    run.save_checkpoint = save_and_stop
    try:
        command(words)
    except SystemExit as end:
        if end.code:
            raise
