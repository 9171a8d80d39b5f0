"""Run the cells of a campaign in several processes, one thread each."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

from daso.cli.processes.signals import SIGNALS
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, Outcome
from daso.train.loop import never

EXIT_TIMEOUT_SECONDS = 60.0
"""Time that an orphaned worker has to save its run before it ends without."""
POLL_SECONDS = 0.2
"""Longest delay until a request to stop reaches the workers."""


def _work(connection: Connection, campaign: Campaign) -> None:
    stop = threading.Event()
    # A terminal signals the whole group; the parent decides, and stops this process by SIGTERM,
    # which is never ignored: that would discard one that was sent before this line.
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    for number in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_follow_parent, args=(stop,), daemon=True).start()

    import torch

    from daso.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    while True:
        try:
            cell = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        outcome = campaign.attempt(cell, lambda cell, run, rows: deque(rows, 0), stop.is_set)
        try:
            connection.send(outcome)
        except OSError:  # the parent is gone; the run is saved
            return


def _follow_parent(stop: threading.Event) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    stop.set()
    time.sleep(EXIT_TIMEOUT_SECONDS)
    os._exit(1)


class Workers:
    """Worker processes of a campaign; leaving the ``with`` block kills those that still run.

    Once *stop* returns True, no cell is started and running ones are saved.
    """

    def __init__(self, campaign: Campaign, count: int, stop: Callable[[], bool] = never) -> None:
        self._campaign = campaign
        self._count = count
        self._stop = stop
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers:
        # The threads of several processes would compete for the same cores.
        os.environ["OMP_NUM_THREADS"] = "1"
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes.clear()

    def attempts(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells and yield each outcome as soon as it is there.

        Cells that a request to stop kept from starting have no outcome.
        """
        waiting = deque(cells)
        idle = list(self._processes)
        working: dict[Connection, Cell] = {}
        stopped = False
        while waiting or working:
            if self._stop() and not stopped:
                stopped = True
                waiting.clear()
                for connection in working:
                    self._processes[connection].terminate()
            while waiting and len(working) < self._count:
                connection = idle.pop() if idle else self._start()
                try:
                    connection.send(waiting[0])
                except OSError:  # the process was killed while it was idle
                    self._processes.pop(connection).join()
                    continue
                working[connection] = waiting.popleft()
            for connection in cast("list[Connection]", wait(list(working), POLL_SECONDS)):
                cell = working.pop(connection)
                try:
                    outcome = connection.recv()
                    idle.append(connection)
                except (EOFError, OSError):
                    self._processes.pop(connection).join()
                    message = "its process was killed, perhaps because memory ran out"
                    outcome = Outcome("stopped" if stopped else "failed", message)
                yield cell, outcome

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._campaign), daemon=True)
        multiprocessing.resource_tracker.ensure_running()  # its start would unblock the signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()  # signals stay blocked there until its handlers are set
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._processes[connection] = process
        return connection
