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
    """Return a function of the views embedded and their total that prints a line now and then."""
    return _counter("embedded", "views of images", clock, at_once=True)


def decoding_progress(clock: Clock = time.monotonic) -> Callable[[str, int, int], None]:
    """Return a function of a part of the data, its images decoded and their total."""
    parts: dict[str, Callable[[int, int], None]] = {}

    def report(part: str, done: int, total: int) -> None:
        parts.setdefault(part, _counter(f"{part}: decoded", "images", clock))(done, total)

    return report


def _counter(
    verb: str, noun: str, clock: Clock, *, at_once: bool = False
) -> Callable[[int, int], None]:
    """Return a function that prints counts; *at_once*: the first ones too, if some are left."""
    began: tuple[float, int] | None = None
    shown = 0.0

    def report(done: int, total: int) -> None:
        nonlocal began, shown
        now, rate = clock(), 0.0
        is_first = began is None
        began = began or (now, done)
        if is_first:
            shown = now
            if not at_once or done == total:
                return
        elif now - shown < PERIOD_SECONDS:
            return
        else:
            shown, rate = now, (done - began[1]) / (now - began[0])
        minutes = (total - done) / rate / 60 if rate else 0
        left = f", {rate:.0f} a second, {minutes:.1f} minutes left" if rate else ""
        print(f"{verb} {done:,} of {total:,} {noun}{left}", file=sys.stderr)

    return report
