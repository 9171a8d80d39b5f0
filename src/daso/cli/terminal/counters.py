"""Print notices, and the progress of decoding and embedding images, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

PERIOD_SECONDS = 5.0
"""Time between two lines."""


def tell(message: str) -> None:
    """Print a message on standard error."""
    print(message, file=sys.stderr)


def notice(message: str) -> None:
    """Print a message on standard error, as one of daso."""
    tell(f"daso: {message}")


def embedding_progress() -> Callable[[int, int], None]:
    """Return a function that prints now and then how many views of images are embedded."""
    return counter("embedded", "views of images", at_once=True)


def decoding_progress() -> Callable[[str, int, int], None]:
    """Return the same, but of a part of the data, its images that are decoded and their total."""
    return _by_part("decoded", "images")


def download_progress() -> Callable[[str, int, int | None], None]:
    """Return the same, but of a file, its bytes that are there and their total, if it is known."""
    report = _by_part("downloaded", "MB")
    return lambda name, done, total: report(name, done // 10**6, (total or done) // 10**6)


def _by_part(verb: str, noun: str) -> Callable[[str, int, int], None]:
    parts: dict[str, Callable[[int, int], None]] = {}

    def report(part: str, done: int, total: int) -> None:
        parts.setdefault(part, counter(f"{part}: {verb}", noun))(done, total)

    return report


def counter(verb: str, noun: str, *, at_once: bool = False) -> Callable[[int, int], None]:
    """Return a function of a count and its total that prints them now and then.

    *at_once*: the first ones too, if some are left.
    """
    began, shown, calls = (0.0, 0), 0.0, 0

    def report(done: int, total: int) -> None:
        nonlocal began, shown, calls
        now, left = time.monotonic(), ""
        calls += 1
        if calls <= 2:  # what the first images wait for says nothing about the others
            began = now, done
        if calls == 1:
            shown = now
            if not at_once or done == total:
                return
        elif now - shown < PERIOD_SECONDS:
            return
        else:
            shown = now
            if rate := calls > 2 and (done - began[1]) / (now - began[0]):
                minutes = (total - done) / rate / 60
                left = f", {rate:.0f} a second, {minutes:.1f} minutes left"
        tell(f"{verb} {done:,} of {total:,} {noun}{left}")

    return report
