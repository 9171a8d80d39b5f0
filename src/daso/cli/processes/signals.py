"""Stop a training by a signal, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""The last is what Slurm's --signal=USR1@90 sends; a process that does not listen dies of it."""
REPEAT_SECONDS = 2.0
"""Signals repeated within this time are ignored: torchrun forwards what was sent to all."""
NOTICE = (
    b"daso: stopping after this step, with a checkpoint; send the signal again to stop at once\n"
)


@contextmanager
def if_stopped(words: str) -> Iterator[None]:
    """Give a KeyboardInterrupt the words that the command line prints, unless it has some."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.args = interrupt.args or (words,)
        raise


class Stop:
    """Records the first ``signal`` that asks to stop; calling it tells whether there was one."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def status(self) -> int:
        """Exit status after a signal, as in shells: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Treat ``SIGNALS`` as requests to stop.

        A later second one raises KeyboardInterrupt. Only the main thread can handle signals; in any
        other thread this does nothing. A signal that is ignored, such as SIGHUP under nohup, stays
        ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        handled = {n: handler for n, handler in before.items() if handler is not signal.SIG_IGN}
        try:
            for number in handled:
                signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in handled.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            if time.monotonic() - self._since < REPEAT_SECONDS:
                return
            raise KeyboardInterrupt
        self.signal, self._since = number, time.monotonic()
        os.write(2, NOTICE)  # print() is not reentrant
