"""Ways to damage the bytes of a file, for property-based tests."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from daso.errors import DasoError

Fault = Callable[[bytes], bytes | None]
"""Returns what damage makes of a file's content; None: the file is gone."""


def flip(place: float, bit: int = 0) -> Fault:
    """Return what flips one bit, at a share of the file's length."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        if changed:
            changed[min(int(place * len(changed)), len(changed) - 1)] ^= 1 << bit
        return bytes(changed)

    return change


def faults(seed: str, flips: int = 0) -> Iterator[tuple[str, Fault]]:
    """Yield ways to damage a file: gone, cut at several places, a bit flipped at several places."""
    yield "missing", lambda content: None
    yield "empty", lambda content: b""
    yield "half", lambda content: content[: len(content) // 2]
    yield "end gone", lambda content: content[:-2]
    yield (
        "zeros at the end",
        lambda content: content[: len(content) // 2].ljust(len(content), b"\0"),
    )
    draw = random.Random(seed)
    for place in (0.0, 0.5, 1.0, *(draw.random() for _ in range(flips))):
        yield f"bit at {place:.3f}", flip(place, draw.randrange(8) if flips else 0)


@contextlib.contextmanager
def with_fault(path: Path, fault: Fault) -> Iterator[None]:
    """Damage a file, and restore it."""
    content = path.read_bytes()
    changed = fault(content)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
"""The same examples every time, so that the suite neither flickers nor writes; fuzz_readers.py looks for new ones."""
TEMPTING = [
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff" * 8,
    b"",
]


@st.composite
def damaged(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """Return one of *contents*, cut short or with bytes changed, put in, left out, or a stretch of it repeated."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        place = draw(st.integers(0, len(content) - 1))
        kind = draw(
            st.sampled_from(["cut", "byte", "tempting", "insert", "remove", "repeat", "bytes"])
        )
        length = draw(st.integers(1, 32))
        if kind == "cut":
            del content[place:]
        elif kind == "byte":
            content[place] = draw(st.integers(0, 255))
        elif kind == "tempting":
            value = draw(st.sampled_from(TEMPTING))
            content[place : place + len(value)] = value
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=32))
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * draw(st.integers(1, 50))
        else:
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
    return bytes(content)


def survives(read: Callable[[], object]) -> object | None:
    """Return what *read* returns, or None if it raises an error for the user; any other error fails the test."""
    try:
        return read()
    except DasoError as error:
        said = str(error).strip()
    assert said, "an error must say something"
    return None


def put(path: Path, content: bytes) -> Path:
    """Write a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
