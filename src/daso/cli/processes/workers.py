"""Processes that run the cells of a campaign, one thread each."""

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
from types import TracebackType
from typing import cast

from daso.files import Row
from daso.reproduce.campaign import Campaign, Outcome
from daso.reproduce.cells import Cell
from daso.train.loop import never
from daso.train.prepare import Prepared

GRACE = 60.0
"""Seconds that a process has to save its run after its campaign was killed; then it ends without."""
LOOK = 0.2
"""Seconds until a request to stop is passed on."""
SIGNALS = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}


def _consume(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
    for _ in rows:
        pass


def _work(connection: Connection, campaign: Campaign) -> None:
    """Run the cells that come through a connection until it is closed, this process is told to stop, or orphaned."""
    asked = threading.Event()
    # What a terminal sends reaches the campaign too, which tells this process to stop, by SIGTERM.
    for number in SIGNALS - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _follow_parent(asked)

    import torch

    from daso.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        outcome = campaign.attempt(cell, _consume, asked.is_set)
        try:
            connection.send(outcome)
        except OSError:  # nobody is there any more; the run is saved
            return


def _follow_parent(asked: threading.Event) -> None:
    """Ask this process to stop once the one that started it is gone, however it went; end it if it does not."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        asked.set()
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Workers:
    """Worker processes of a campaign; none is left after the ``with`` block, which ends them wherever they are.

    Args:
        campaign: of the cells.
        count: of processes.
        stop: is asked now and then whether to stop: then no further cell is begun, and those that run are saved.
    """

    def __init__(self, campaign: Campaign, count: int, stop: Callable[[], bool] = never) -> None:
        self._campaign = campaign
        self._count = count
        self._stop = stop
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers:
        # One thread a process: the threads of several on the same processors would wait for one another.
        os.environ["OMP_NUM_THREADS"] = "1"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes.clear()

    def attempts(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Run cells and yield what came of each as soon as it is over; what was not begun is not yielded."""
        waiting = deque(cells)
        idle = list(self._processes)
        working: dict[Connection, Cell] = {}
        told = False
        while waiting or working:
            if self._stop() and not told:
                told = True
                waiting.clear()
                for connection in working:
                    self._processes[connection].terminate()
            while waiting and len(working) < self._count:
                connection = idle.pop() if idle else self._start()
                try:
                    connection.send(waiting[0])
                except OSError:  # it was killed while it had nothing to do
                    self._processes.pop(connection).join()
                    continue
                working[connection] = waiting.popleft()
            for connection in cast("list[Connection]", wait(list(working), LOOK)):
                cell = working.pop(connection)
                try:
                    outcome = connection.recv()
                    idle.append(connection)
                except (EOFError, OSError):
                    self._processes.pop(connection).join()
                    message = "its process was killed, perhaps for want of memory"
                    outcome = Outcome("stopped" if told else "failed", message)
                yield cell, outcome

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        connection, other = context.Pipe()
        process = context.Process(target=_work, args=(other, self._campaign), daemon=True)
        multiprocessing.resource_tracker.ensure_running()  # which unblocks signals when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()  # with the signals blocked until it knows what to do with them
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        other.close()
        self._processes[connection] = process
        return connection
