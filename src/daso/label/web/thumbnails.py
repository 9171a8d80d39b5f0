"""Pictures of images for the page: upright, no larger than the screen shows, cached."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from daso.data.images.decode import decode_within, to_picture
from daso.data.images.encoded import no_size_warnings
from daso.errors import DataError

SIDES = (96, 192, 384, 768, 1536)
"""Largest sides of pictures in pixels; a page asks for one and gets the next of these."""
LOSSLESS = 64
"""Side in pixels up to which pictures are PNG files."""
LINE = 38
"""Letters of a line of a text that stands for a picture."""
CACHE_BYTES = 128 << 20
"""Memory for pictures that may be asked for again."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture; ``missing`` if it only says why the image cannot be shown."""

    content: bytes
    media_type: str
    missing: bool = False


class Thumbnails:
    """Makes pictures of images by their number; may be used by several threads.

    Args:
        read: returns the file or the bytes of image i.
        name: returns the name of image i.
    """

    def __init__(self, read: Callable[[int], Path | bytes], name: Callable[[int], str]) -> None:
        self._read, self._name = read, name
        self._kept: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def picture(self, image: int, side: int) -> Picture:
        """Return the picture of an image, no side of which is longer than about *side* pixels."""
        key = image, next((one for one in SIDES if one >= side), SIDES[-1])
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            picture = encode(self._read(image), key[1])
        except (DataError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return placeholder(self._name(image), reason or type(error).__name__)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture.content)
            while self._bytes > CACHE_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.content)
        return picture


def encode(source: Path | bytes, side: int) -> Picture:
    """Encode the picture of an image: PNG if it is tiny, else WebP.

    Raises:
        DataError: the image cannot be decoded.
    """
    with no_size_warnings():
        picture = to_picture(decode_within(source, side))
    file = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(file, "PNG")
        return Picture(file.getvalue(), "image/png")
    picture.save(file, "WEBP", quality=84, method=2)
    return Picture(file.getvalue(), "image/webp")


def placeholder(name: str, reason: str) -> Picture:
    """Return a picture that says in words why there is none."""
    cure = "Restore its file, or skip the image."
    lines = ["This image cannot be shown", *_wrapped(name), *_wrapped(reason), cure]
    rows = "".join(
        f'<text x="160" y="{165 + 21 * row}" class="{"first" if row == 0 else ""}">'
        f"{escape(line)}</text>"
        for row, line in enumerate(lines)
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 320" width="640" height="640">'
        "<style>text{font:15px system-ui,sans-serif;fill:#6b7480;text-anchor:middle}"
        ".first{font-weight:600;fill:#3c444d}</style>"
        '<rect width="320" height="320" fill="#eef0f2"/>'
        '<g fill="none" stroke="#98a1ab" stroke-width="3" stroke-linejoin="round" '
        'stroke-linecap="round"><path d="M120 62h58l22 22v48a6 6 0 0 1-6 6h-68a6 6 0 0 1-6-6z"/>'
        '<path d="M178 62v22h22M142 100l36 26M178 100l-36 26"/></g>'
        f"{rows}</svg>"
    )
    return Picture(svg.encode(), "image/svg+xml", missing=True)


def _wrapped(text: str) -> list[str]:
    """Break a text, which may be a path without blanks, into three lines; the end is kept."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if len(text) > 3 * LINE:
        text = "…" + text[-(3 * LINE - 1) :]
    return [text[start : start + LINE] for start in range(0, len(text), LINE)]
