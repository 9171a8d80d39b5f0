"""Shows how work goes on that may take minutes before a training begins: decoding images, embedding them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

SECONDS = 5.0
"""Between two lines."""


def embedding_progress(clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Return a function that is told how many images are embedded, of how many, and prints it now and then."""
    return _counter("embedded", clock)


def decoding_progress(
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[str, int, int], None]:
    """Return a function that is told the same of images that are decoded, part by part of a data set."""
    parts: dict[str, Callable[[int, int], None]] = {}

    def report(part: str, done: int, total: int) -> None:
        parts.setdefault(part, _counter(f"{part}: decoded", clock))(done, total)

    return report


def _counter(verb: str, clock: Callable[[], float]) -> Callable[[int, int], None]:
    began: tuple[float, int] | None = None
    shown = 0.0

    def report(done: int, total: int) -> None:
        nonlocal began, shown
        now = clock()
        if began is None:
            began, shown = (now, done), now
        elif now - shown >= SECONDS:
            shown = now
            rate = (done - began[1]) / (now - began[0])
            left = f", {(total - done) / rate / 60:.1f} minutes left" if rate > 0 else ""
            print(
                f"{verb} {done:,} of {total:,} images, {rate:.0f} a second{left}", file=sys.stderr
            )

    return report
