"""Signals that ask a training to stop: the first one politely, the second one at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
ECHO = 2.0
"""Seconds in which further signals mean no more than the first: torchrun passes on to its processes what a scheduler or
Ctrl-C has sent to all of them already."""
NOTICE = b"daso: stopping after this step, with a checkpoint; once more to leave at once\n"


class Stop:
    """Tells whether this process was asked to stop; calling it is the question.

    Attributes:
        signal: the first one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    def __call__(self) -> bool:
        """Tell whether a signal came."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended, as shells have it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP as requests to stop; a second one, not at once, raises KeyboardInterrupt.

        Outside the main thread, which alone may listen, nothing happens. A signal that is ignored stays so: SIGHUP
        under nohup.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        taken = {
            number: handler for number, handler in before.items() if handler is not signal.SIG_IGN
        }
        try:
            for number in taken:
                signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in taken.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            if time.monotonic() - self._since < ECHO:
                return
            raise KeyboardInterrupt
        self.signal, self._since = number, time.monotonic()
        os.write(2, NOTICE)  # print may be interrupted in the middle of another print
