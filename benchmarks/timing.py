"""Time of the parts of a step, by the clock or the processor, and objects in other processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Clock = Literal["wall", "processor"]


def processor_seconds() -> float:
    """Return the processor time of this process's threads and of its data-loading processes."""
    children = 0
    for process in multiprocessing.active_children():
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        fields = stat.rpartition(")")[2].split()
        children += int(fields[11]) + int(fields[12])
    return time.process_time() + children / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Splits time into named parts; on CUDA by events in the stream, so that no part waits.

    The clock ``"processor"`` ignores the time that other processes take on a busy CPU.
    """

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.cuda = device.type == "cuda" and torch.cuda.is_available()
        self.now = processor_seconds if clock == "processor" else time.perf_counter
        self._marks: list[tuple[str, Any]] = []

    def lap(self, name: str) -> None:
        """Charge the time since the last lap to *name*."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((name, event))
        else:
            self._marks.append((name, self.now()))

    def take(self) -> dict[str, float]:
        """Return the seconds of each name since the first lap, and their sum as ``"step"``."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, begin), (name, end) in itertools.pairwise(self._marks):
            passed = begin.elapsed_time(end) / 1000 if self.cuda else end - begin
            seconds[name] = seconds.get(name, 0.0) + passed
        self._marks.clear()
        return {"step": sum(seconds.values()), **seconds}

    def time(self, function: Callable[[], object]) -> float:
        self.lap("")
        function()
        self.lap("work")
        return self.take()["work"]

    def wrap(
        self, function: Callable[..., Any], after: str, before: str | None = None
    ) -> Callable[..., Any]:
        """Return *function* with a lap after it, and one before it if that has a name."""

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if before is not None:
                self.lap(before)
            result = function(*arguments, **options)
            self.lap(after)
            return result

        return timed

    @contextmanager
    def parts(
        self, optimizer: torch.optim.Optimizer, average: object, update: str
    ) -> Iterator[None]:
        """Take laps around the backward pass, the optimizer and the moving average."""
        backward = Tensor.backward
        wrapped = {
            "backward": (Tensor, self.wrap(backward, "backward", "forward")),
            "step": (optimizer, self.wrap(optimizer.step, "optimizer")),
            update: (average, self.wrap(getattr(average, update), "moving average")),
        }
        for name, (owner, function) in wrapped.items():
            setattr(owner, name, function)
        try:
            yield
        finally:
            setattr(Tensor, "backward", backward)  # noqa: B010 - mypy forbids assigning a method
            del optimizer.step, average.__dict__[update]


class Remote:
    """An object, made by *make*, in a process of its own, which does not disturb others.

    Raises:
        RuntimeError: it could not be made; the message says why.
    """

    def __init__(self, threads: int, make: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        preload = ["torch._dynamo", "torch.utils.flop_counter", "daso.train.run"]
        context.set_forkserver_preload(preload)
        self._pipe, theirs = context.Pipe()
        # Not a daemon: those may not start data-loading processes.
        self._process = context.Process(
            target=_serve, args=(theirs, threads, make, arguments), daemon=False
        )
        self._process.start()
        theirs.close()
        self._answer()

    def _answer(self) -> Any:
        try:
            error, result = self._pipe.recv()
        except EOFError:
            error = "the process died"
        if error is not None:
            self.close()
            raise RuntimeError(error)
        return result

    def call(self, method: str, *arguments: object) -> Any:
        self._pipe.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(
    pipe: Any, threads: int, make: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    torch.set_num_threads(threads)
    # Data-loading processes start in the system's usual way, not in this process's.
    multiprocessing.set_start_method(None, force=True)
    try:
        target = make(*arguments)
        pipe.send((None, None))
        while True:
            try:
                method, values = pipe.recv()
            except EOFError:
                return
            pipe.send((None, getattr(target, method)(*values)))
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", None))
