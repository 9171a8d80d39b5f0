"""Ways to damage the bytes of a file, for property-based tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from daso.errors import DasoError

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
