"""Takes the time of the parts of a step."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import torch

Clock = Literal["wall", "processor"]


def processor_seconds() -> float:
    """Return the processor time of this process's threads and of the processes that load data for it."""
    children = 0
    for process in multiprocessing.active_children():
        fields = (
            Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        children += int(fields[11]) + int(fields[12])
    return time.process_time() + children / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Splits time into named parts; on CUDA by events in the stream, so that no part waits for the one before.

    Args:
        device: whose time is taken.
        clock: on a CPU; ``"processor"`` does not count what a busy machine makes a process wait.
    """

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.cuda = device.type == "cuda"
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
        """Return the seconds of each name, and of all as ``"step"``; the first lap only started the watch."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, begin), (name, end) in itertools.pairwise(self._marks):
            passed = begin.elapsed_time(end) / 1000 if self.cuda else end - begin
            seconds[name] = seconds.get(name, 0.0) + passed
        self._marks.clear()
        return {"step": sum(seconds.values()), **seconds}

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
