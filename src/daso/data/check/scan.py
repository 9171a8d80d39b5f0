"""Scan each image once and keep about 1 kB for ``daso data check``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from daso.data.check.near_copies import thumbnail
from daso.data.images.decode import ImageHeader
from daso.data.images.decoded import digest
from daso.data.images.encoded import (
    Encoded,
    content_digest,
    no_size_warnings,
    read_headers,
    work_through,
)
from daso.data.images.layout import Layout, choose_layout
from daso.data.journal.names import array_name
from daso.data.listing import Listing, Reading
from daso.data.read_listing import choose_side
from daso.data.source import Source

Progress = Callable[[int, int], None]
"""Called with the images done and the total."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of an image.

    Attributes:
        content: digest of its file, b"" without one.
        pixels: digest of the pixels that training uses.
        thumbnail: uint8 (16, 16, 3).
        hash: perceptual, of 63 bits.
        brightest: the largest value.
    """

    content: bytes
    pixels: bytes
    thumbnail: npt.NDArray[np.uint8]
    hash: int
    brightest: int


@dataclass(frozen=True)
class PartScan:
    """The scan of a part with N images.

    Attributes:
        labels: int64 (N,), -1 where unknown.
        headers, looks: by index, of readable images.
        reasons: by index, why an image cannot be read.
    """

    labels: npt.NDArray[np.int64]
    name_of: Callable[[int], str]
    headers: dict[int, ImageHeader]
    reasons: dict[int, str]
    looks: dict[int, Look] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def class_counts(self, classes: int) -> list[int]:
        """Return the readable images of each class, (K,)."""
        labels = self.labels[list(self.looks)]
        counts: list[int] = np.bincount(labels[labels >= 0], minlength=classes).tolist()
        return counts


@dataclass(frozen=True)
class Scan:
    """The scan of all parts; ``shape`` (C, H, W) is that of training, None if nothing is readable.

    ``shrunk`` says whether ``largest_side`` decided it.
    """

    parts: Mapping[str, PartScan]
    shape: tuple[int, int, int] | None
    shrunk: bool = False

    def headers(self) -> Iterator[tuple[str, ImageHeader]]:
        """Yield the name and the header of every readable image."""
        for part in self.parts.values():
            for index, header in part.headers.items():
                yield part.name_of(index), header


def scan_listing(listing: Listing, reading: Reading, progress: Progress) -> Scan:
    """Read every image of a listing, once for its header and once for its pixels; keep none."""
    parts: dict[str, PartScan] = {}
    with no_size_warnings():
        for part, pool in listing.pools.items():
            parts[part] = PartScan(pool.labels, pool.name_of, *read_headers(pool))
        headers = [header for part in parts.values() for header in part.headers.values()]
        if not headers:
            return Scan(parts, None)
        layout, notes = choose_side(choose_layout(headers), reading)
        total, done = sum(map(len, parts.values())), 0
        for part, pool in listing.pools.items():
            looks, reasons = parts[part].looks, parts[part].reasons
            work = partial(_look, layout=layout)
            for index, look in enumerate(work_through(pool, work, set(reasons))):
                if isinstance(look, Look):
                    looks[index] = look
                elif look:
                    reasons[index] = look
                done += 1
                progress(done, total)
    return Scan(parts, (layout.channels or 3, layout.height, layout.width), bool(notes))


def _look(source: Encoded, layout: Layout) -> Look:
    pixels = layout.decode(source)
    return Look(content_digest(source), digest(pixels), *thumbnail(pixels), int(pixels.max()))


def scan_source(source: Source, progress: Progress) -> Scan:
    """Scan every image of a decoded source."""
    channels, height, width = source.train.images.shape[1:]
    header = ImageHeader(height, width, channels == 1)
    total, done = sum(map(len, source.parts().values())), 0
    parts: dict[str, PartScan] = {}
    for part, images in source.parts().items():
        names = images.paths.__getitem__ if images.paths else partial(array_name, part)
        headers = dict.fromkeys(range(len(images)), header)
        parts[part] = PartScan(images.labels, names, headers, {})
        for index, image in enumerate(images.images):
            pixels = np.ascontiguousarray(image, dtype=np.uint8)
            look = Look(b"", digest(pixels), *thumbnail(pixels), int(pixels.max()))
            parts[part].looks[index] = look
            done += 1
            progress(done, total)
    return Scan(parts, (channels, height, width))
