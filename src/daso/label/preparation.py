"""Features that are computed while people label already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from daso.errors import DasoError, RunError, first_line
from daso.files import Row
from daso.label.images import Embedding, Progress
from daso.label.session import Session
from daso.report.wording import duration

Compute = Callable[[Path | None, Progress], Embedding]
"""Returns features of all images: of a run's model, or those from before the first training."""


class Preparation:
    """Computes the features of a session, one computation at a time, and tells how far it is.

    Args:
        session: takes the features into use.
        notice: called with what to tell in the terminal.
    """

    def __init__(self, session: Session, compute: Compute, notice: Callable[[str], None]) -> None:
        self._session, self._compute, self._notice = session, compute, notice
        self._turn = threading.Lock()
        self._state: Row = {"state": "ready"}  # replaced as a whole, which needs no lock
        self._run: Path | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def state(self) -> Row:
        """Return what the page shows.

        The state is computing, with images done, all, and the time left in words; ready; or failed,
        with the error.
        """
        return dict(self._state)

    def start(self, run: Path | None) -> None:
        """Compute the features of a run in a thread; an error is told, and ends nothing."""
        self._turn.acquire()  # here, so that a training that ends meanwhile comes later
        self._run = run
        self._thread = threading.Thread(target=self._work, name="features", daemon=True)
        self._thread.start()

    def repeat(self) -> None:
        """Try again what has failed.

        Raises:
            RunError: nothing has failed.
        """
        if self.state()["state"] != "failed":
            raise RunError("the comparison of the images has not failed")
        self.start(self._run)

    def take(self, run: Path) -> None:
        """Compute the features of a run and use them; errors are raised."""
        with self._turn:
            before = self._state
            try:
                self._take(run)
            except BaseException:
                self._state = before
                raise

    def close(self, seconds: float = 10.0) -> None:
        """Break off what is being computed, and wait some time for it."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        try:
            self._take(self._run)
            self._notice("the images are compared; the page suggests what to label")
        except _ClosedError:
            pass
        except Exception as error:  # whatever it is, the page tells it, and labeling goes on
            kind = type(error).__name__
            reason = str(error) if isinstance(error, DasoError) else f"{kind}: {first_line(error)}"
            self._state = {"state": "failed", "error": reason}
            self._notice(
                f"error: the images could not be compared: {reason}\n"
                "They come in random order. Mend the cause and press 'Try again' in the page."
            )
        finally:
            self._turn.release()

    def _take(self, run: Path | None) -> None:
        total = len(self._session.images)
        self._state = {"state": "computing", "done": 0, "total": total, "left": None}
        began: tuple[float, int] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal began
            if self._closed.is_set():
                raise _ClosedError
            now = time.monotonic()
            began = began or (now, done)
            rate = (done - began[1]) / max(now - began[0], 1e-9)
            left = duration((total - done) / rate) if rate > 0 else None
            self._state = {"state": "computing", "done": done, "total": total, "left": left}

        self._session.replace_embedding(self._compute(run, progress))
        self._state = {"state": "ready"}


class _ClosedError(Exception):
    """The page ends."""
