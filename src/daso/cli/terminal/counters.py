"""Print notices, and the progress of decoding and embedding images, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

PERIOD_SECONDS = 5.0
"""Time between two lines."""

Clock = Callable[[], float]


def notice(message: str) -> None:
    """Print a message on standard error."""
    print(f"daso: {message}", file=sys.stderr)


def embedding_progress(clock: Clock = time.monotonic) -> Callable[[int, int], None]:
    """Return a function of the images embedded and their total that prints a line now and then."""
    return _counter("embedded", clock)


def decoding_progress(clock: Clock = time.monotonic) -> Callable[[str, int, int], None]:
    """Return a function of a part of the data, its images decoded and their total."""
    parts: dict[str, Callable[[int, int], None]] = {}

    def report(part: str, done: int, total: int) -> None:
        parts.setdefault(part, _counter(f"{part}: decoded", clock))(done, total)

    return report


def _counter(verb: str, clock: Clock) -> Callable[[int, int], None]:
    began: tuple[float, int] | None = None
    shown = 0.0

    def report(done: int, total: int) -> None:
        nonlocal began, shown
        now = clock()
        if began is None:
            began, shown = (now, done), now
        elif now - shown >= PERIOD_SECONDS:
            shown = now
            rate = (done - began[1]) / (now - began[0])
            left = f", {(total - done) / rate / 60:.1f} minutes left" if rate > 0 else ""
            line = f"{verb} {done:,} of {total:,} images, {rate:.0f} a second{left}"
            print(line, file=sys.stderr)

    return report
