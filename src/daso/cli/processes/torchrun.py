"""This process among those that ``torchrun`` started to train together."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import re
import shutil
import sys
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

from daso.cli import INTERRUPTED, leave
from daso.errors import DasoError, OptionError
from daso.nets.distributed import Processes, TeamError
from daso.train.folder.environment import describe_environment
from daso.train.prepare import Prepared

Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits in the middle of a training for one that has gone without a sign."""
PATIENCE = timedelta(days=2)
"""How long it waits while others read or embed images."""
WORD = timedelta(seconds=20)
"""How long it waits until another one has told what went wrong."""
LAST_WORD = timedelta(seconds=3)
"""How long it waits for those that lost another one too."""
LOST = re.compile(r"gloo|nccl|connection|socket|broken pipe|timed? ?out|peer", re.IGNORECASE)
"""What messages say of a process that does not answer."""


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

    def prepare(self, work: Callable[[], Result], prepared: Callable[[Result], Prepared]) -> Result:
        """Prepare a training in every process, and see to it that all have prepared the same.

        Args:
            work: prepares it.
            prepared: finds it in what *work* returns.

        Raises:
            TeamError: *work* failed in a process, or they differ in versions, options, images or weights.
        """
        if self.processes is None:
            return work()
        try:
            result = work()
            told = _facts(prepared(result))
        except TeamError:
            raise
        except Exception as error:
            self.processes.fail(error)
        (here, first), *others = self.processes.tell(told)
        for rank, (host, other) in enumerate(others, 1):
            for name in first:
                if first[name] != other[name] and None not in (first[name], other[name]):
                    raise TeamError(
                        f"the processes do not agree. {name}: {first[name]} in process 0 on {here}, {other[name]} "
                        f"in process {rank} on {host}. All need the same versions, options and files"
                    )
        return result


def _facts(prepared: Prepared) -> dict[str, Any]:
    """Return what must be the same in all processes, in words."""
    environment = describe_environment(prepared.data.labeled.labels.device, prepared.config.method)
    facts = {name: environment[name] for name in ("daso", "commit", "torch", "numpy", "own_files")}
    facts["configuration"] = prepared.config.fingerprint()
    facts["split"] = prepared.data.fingerprint
    facts |= {
        f"{name} images": digits for name, digits in prepared.data.images_fingerprints.items()
    }
    facts["step"] = prepared.step
    sums = [float(tensor.double().sum()) for tensor in prepared.tensors().values()]
    facts["checksum of the state"] = hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
    return facts


@contextlib.contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that torchrun started with this one, if it did; all but the first are silent.

    Each takes the accelerator of its number on its machine, or the CPU where *device* is "cpu" or there is none. What
    one of them fails with is told once, and all leave.

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
        raise OptionError(
            f"{size} processes cannot train on --device {device}: leave it out, or cpu"
        )
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
            timeout=TIMEOUT,
        )
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
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
    except KeyboardInterrupt:  # a second signal, which does not wait for the others
        if rank == 0:
            print("daso: stopped", file=sys.stderr)
        leave(INTERRUPTED)


def _end(error: Exception, store: PrefixStore, rank: int, size: int) -> NoReturn:
    """Leave with an error, which one process tells: the first to come here, as what others meet follows from it."""
    me = f"process {rank} on {platform.node()}"
    told = (
        error.__cause__ if isinstance(error, TeamError) and error.__cause__ is not None else error
    )
    status = 2 if isinstance(told, OptionError) else 1
    with contextlib.suppress(RuntimeError):  # the store may be gone with the first process
        if store.compare_set("failed", "", str(rank)) != str(rank).encode():
            store.wait(["told"], WORD)  # torchrun ends all as soon as one has left
            _leave(error, store, rank, size, status)
    if isinstance(error, TeamError) and isinstance(told, DasoError):
        print(f"daso: {told}", file=sys.stderr)
    elif isinstance(told, DasoError):
        print(f"daso: {me}: {told}", file=sys.stderr)
    elif _is_lost(told):
        print(
            f"daso: {me} lost another one, which was killed or whose machine is gone. 'daso resume' goes on from the "
            f"last checkpoint, as torchrun --max-restarts N does by itself ({str(told).splitlines()[0]})",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(told)
    with contextlib.suppress(RuntimeError):
        store.set("told", "")
    _leave(error, store, rank, size, status)


def _leave(error: Exception, store: PrefixStore, rank: int, size: int, status: int) -> NoReturn:
    """Leave; the first process, which may hold the store, as the last: without it each of the others would tell."""
    holds_store = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with contextlib.suppress(RuntimeError):
        store.set(f"left {rank}", "")
        if isinstance(error, TeamError) or holds_store:
            if not isinstance(error, TeamError):
                _hang_up()
            if rank == 0:
                others = [f"left {other}" for other in range(size)]
                store.wait(others, WORD if not _is_lost(error) else LAST_WORD)
    leave(status)


def _hang_up() -> None:
    """Leave the groups in the middle of a training, for the others to notice."""
    thread = threading.Thread(
        target=dist.destroy_process_group, daemon=True
    )  # which may wait for one that is gone
    thread.start()
    thread.join(LAST_WORD.total_seconds())


def _is_lost(error: BaseException) -> bool:
    """Tell whether an error says that another process is gone."""
    return (
        isinstance(error, RuntimeError)
        and not isinstance(error, DasoError)
        and bool(LOST.search(str(error)))
    )
