"""Join the processes that ``torchrun`` started to train together."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import re
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from daso.cli import INTERRUPTED, leave, stopped
from daso.cli.terminal.counters import notice
from daso.errors import DasoError, OptionError, first_line
from daso.nets.distributed import Processes, TeamError
from daso.train.folder.environment import describe_environment
from daso.train.prepare import Prepared

Result = TypeVar("Result")

STEP_TIMEOUT = timedelta(minutes=10)
"""How long a training step waits for a process that does not answer."""
PREPARATION_TIMEOUT = timedelta(days=2)
"""How long a process waits while others read or embed images."""
REPORT_TIMEOUT = timedelta(seconds=20)
"""How long a failed process waits until another one has printed the error."""
EXIT_TIMEOUT = timedelta(seconds=3)
"""How long a failed process waits for the others to leave after one was lost."""
LOST_PEER = re.compile(r"gloo|nccl|connection|socket|broken pipe|timed? ?out|peer", re.IGNORECASE)
"""Matches what torch raises when another process does not answer."""


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        processes: this one among them; None if it trains alone.
        device: of this process.
        restarted: whether torchrun restarted all of them after one failed.
    """

    processes: Processes | None
    device: str
    restarted: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process prints and owns the run folder."""
        return self.processes is None or self.processes.rank == 0

    @contextlib.contextmanager
    def folder(self, run: Path, *, resumed: bool = False) -> Iterator[Path]:
        """Yield the folder that this process writes to: the run folder in the first one.

        The others write the same files to a temporary folder. For a *resumed* run that starts as a
        copy of the run folder.
        """
        if self.processes is None:
            yield run
        elif self.processes.rank == 0:
            if resumed:
                dist.barrier()  # the others have their copies
            yield run
        else:
            with tempfile.TemporaryDirectory(prefix="daso-") as place:
                copy = Path(place) / "run"
                if resumed:
                    shutil.copytree(run, copy)
                    dist.barrier()
                yield copy

    def do(self, work: Callable[[], Result]) -> Result:
        """Do a work that every process does.

        Raises:
            TeamError: it failed in a process.
        """
        if self.processes is None:
            return work()
        try:
            result = work()
        except TeamError:
            raise
        except Exception as error:
            self.processes.fail(error)
        self.processes.tell(None)
        return result

    def compare(self, prepared: Prepared) -> None:
        """Check that every process has prepared the same training.

        Raises:
            TeamError: versions, options, images or weights differ.
        """
        if self.processes is None:
            return
        (here, first), *others = self.processes.tell(_shared_facts(prepared))
        for rank, (host, other) in enumerate(others, 1):
            for name in first:
                if first[name] != other[name] and None not in (first[name], other[name]):
                    raise TeamError(
                        f"the processes disagree about {name}: {first[name]} in process 0 on "
                        f"{here}, {other[name]} in process {rank} on {host}; use the same "
                        "versions, options and files in all"
                    )


def _shared_facts(prepared: Prepared) -> dict[str, Any]:
    environment = describe_environment(prepared.data.labeled.labels.device, prepared.config.method)
    images = prepared.data.images_fingerprints
    sums = [float(tensor.double().sum()) for tensor in prepared.tensors().values()]
    return {
        **{name: environment[name] for name in ("daso", "commit", "torch", "numpy", "own_files")},
        "configuration": prepared.config.fingerprint(),
        "split": prepared.data.fingerprint,
        **{f"{name} images": digits for name, digits in images.items()},
        "step": prepared.step,
        "checksum of the state": hashlib.sha256(repr(sums).encode()).hexdigest()[:16],
    }


@contextlib.contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that torchrun started with this one, if any; all but the first are silent.

    Each process takes the accelerator of its number on its machine, or the CPU if *device* is "cpu"
    or there is no accelerator. If one process fails, its error is printed once and all exit.

    Raises:
        OptionError: this machine has fewer accelerators than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(None, device)
        return
    local = int(os.environ["LOCAL_RANK"])
    device = _device_of(device, local, size)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    store, rank, size = next(rendezvous("env://"))
    # The store outlives a restart, and with it the addresses of processes that are gone.
    store = PrefixStore(f"daso-{restarts}", store)
    try:
        dist.init_process_group(
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            store=store,
            rank=rank,
            world_size=size,
            timeout=STEP_TIMEOUT,
        )
        patient = dist.new_group(backend="gloo", timeout=PREPARATION_TIMEOUT)
        processes = Processes(rank, size, local == 0, patient)
        with contextlib.ExitStack() as stack:
            if rank:
                silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(silence))
                stack.enter_context(contextlib.redirect_stderr(silence))
            yield Team(processes, device, restarts > 0)
        processes.leave()
    except Exception as error:
        _end(error, store, rank, size)
    except KeyboardInterrupt as interrupt:  # a signal that does not wait for the others
        leave(stopped(interrupt) if rank == 0 else INTERRUPTED)


def _device_of(device: str, local: int, size: int) -> str:
    if device in ("auto", "cuda") and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if local >= count:
            raise OptionError(
                f"more processes than accelerators on this machine ({count}); use torchrun "
                f"--nproc-per-node {count}"
            )
        torch.cuda.set_device(local)
        return f"cuda:{local}"
    if device == "auto":
        return "cpu"
    if device not in ("cpu", f"cuda:{local}"):
        raise OptionError(
            f"{size} processes cannot train on --device {device}; omit it, or use cpu"
        )
    return device


def _end(error: Exception, store: PrefixStore, rank: int, size: int) -> NoReturn:
    """Exit with the error of the first process to fail; those of the others follow from it.

    The first process goes last: without its store the others would print errors.
    """
    shared = isinstance(error, TeamError)  # known to all processes; its cause if all failed alike
    cause = error.__cause__ if shared and error.__cause__ is not None else error
    tells = True
    with contextlib.suppress(RuntimeError):  # the store may be gone with the first process
        if store.compare_set("failed", "", str(rank)) != str(rank).encode():
            store.wait(["told"], REPORT_TIMEOUT)  # torchrun ends all as soon as one exits
            tells = False
    if tells:
        _tell(cause, "" if shared else f"process {rank} on {platform.node()}")
    holds_store = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with contextlib.suppress(RuntimeError):
        if tells:
            store.set("told", "")
        store.set(f"left {rank}", "")
        if holds_store and not shared:
            # Leaving the groups wakes the others; it may hang on a process that is gone.
            thread = threading.Thread(target=dist.destroy_process_group, daemon=True)
            thread.start()
            thread.join(EXIT_TIMEOUT.total_seconds())
        if rank == 0 and (shared or holds_store):
            others = [f"left {other}" for other in range(size)]
            store.wait(others, EXIT_TIMEOUT if _is_lost_peer(error) else REPORT_TIMEOUT)
    leave(2 if isinstance(cause, OptionError) else 1)


def _tell(cause: BaseException, process: str) -> None:
    if isinstance(cause, DasoError):
        notice(f"{process}: {cause}" if process else str(cause))
    elif _is_lost_peer(cause):
        notice(
            f"{process or 'a process'} lost another process: it was killed, or its machine is "
            "gone. 'daso resume' continues from the last checkpoint, and torchrun --max-restarts N "
            f"does so by itself ({first_line(cause)})"
        )
    else:
        traceback.print_exception(cause)


def _is_lost_peer(error: BaseException) -> bool:
    of_torch = isinstance(error, RuntimeError) and not isinstance(error, DasoError)
    return of_torch and LOST_PEER.search(str(error)) is not None
