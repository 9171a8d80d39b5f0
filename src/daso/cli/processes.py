"""This process among those that ``torchrun`` started to train together."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from daso.errors import OptionError
from daso.nets.shared import Processes


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        processes: this one among them; None: it is alone.
        device: that it trains on.
        restarted: whether torchrun started them anew, after one of them failed.
    """

    processes: Processes | None
    device: str
    restarted: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that speaks and whose folder is the run's."""
        return self.processes is None or self.processes.rank == 0

    @contextlib.contextmanager
    def folder(self, run: Path, *, resumed: bool = False) -> Iterator[Path]:
        """Yield the folder that this process writes its run into: the first one's is the run's.

        All processes do the same and would write the same, so the others write into a temporary folder, which starts
        as a copy of the run's if that is *resumed*.
        """
        if self.processes is None:
            yield run
            return
        if self.processes.rank == 0:
            if resumed:
                dist.barrier()  # the others have their copies
            yield run
            return
        with tempfile.TemporaryDirectory(prefix="daso-") as place:
            own = Path(place) / "run"
            if resumed:
                shutil.copytree(run, own)
                dist.barrier()
            yield own


@contextlib.contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that torchrun started with this one, if it did; all but the first are silent.

    Each takes the accelerator of its number on its machine, or the CPU where *device* is "cpu" or there is none.

    Raises:
        OptionError: there are more processes on this machine than accelerators.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(None, device)
        return
    local = int(os.environ["LOCAL_RANK"])
    if device in ("auto", "cuda") and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise OptionError(
                f"process {local} of this machine has no accelerator of its own, there are "
                f"{torch.cuda.device_count()}: torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    elif device == "auto":
        device = "cpu"
    if device not in ("cpu", f"cuda:{local}"):
        raise OptionError(f"{size} processes cannot train on --device {device}: leave it out, or cpu")
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        # The store outlives a restart, and with it the addresses of processes that are gone.
        store=PrefixStore(f"daso-{restarts}", store),
        rank=rank,
        world_size=size,
    )
    try:
        processes = Processes.of_group()
        with contextlib.ExitStack() as stack:
            if processes.rank:
                silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(silence))
                stack.enter_context(contextlib.redirect_stderr(silence))
            yield Team(processes, device, restarts > 0)
    except BaseException as error:
        print(f"process {dist.get_rank()}: {error}", file=sys.__stderr__)
        raise
    finally:
        dist.destroy_process_group()
