"""Processes that run the cells of a campaign, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import cast

from daso.files import Row
from daso.presets.campaign import Campaign, Outcome
from daso.presets.cells import Cell
from daso.train.prepare import Prepared


def _watch(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
    """Consume the rows of a training as long as the process that started this one lives."""
    parent = multiprocessing.parent_process()
    for _ in rows:
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)


def _work(connection: Connection, campaign: Campaign) -> None:
    """Run the cells that come through a connection until it is closed."""
    import torch

    from daso.train.allocator import keep_freed_memory

    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one stops it
    torch.set_num_threads(1)
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        connection.send(campaign.attempt(cell, _watch))


class Workers:
    """Worker processes of a campaign; leaving the ``with`` block stops them wherever they are.

    Args:
        campaign: of the cells.
        count: of processes.
    """

    def __init__(self, campaign: Campaign, count: int) -> None:
        self._campaign = campaign
        self._count = count
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers:
        # One thread a process: the threads of several on the same processors would wait for one another.
        os.environ["OMP_NUM_THREADS"] = "1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes.clear()

    def attempts(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells and yield what came of each as soon as it is over."""
        waiting = deque(cells)
        idle = list(self._processes)
        working: dict[Connection, Cell] = {}
        while waiting or working:
            while waiting and len(working) < self._count:
                connection = idle.pop() if idle else self._start()
                working[connection] = waiting.popleft()
                connection.send(working[connection])
            for connection in cast("list[Connection]", wait(list(working))):
                cell = working.pop(connection)
                try:
                    outcome = connection.recv()
                    idle.append(connection)
                except EOFError:
                    self._processes.pop(connection).join()
                    outcome = Outcome("failed", "its process was killed, perhaps for want of memory")
                yield cell, outcome

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        connection, other = context.Pipe()
        process = context.Process(target=_work, args=(other, self._campaign), daemon=True)
        process.start()
        other.close()
        self._processes[connection] = process
        return connection
