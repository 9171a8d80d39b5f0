"""One look at every image of a data set: what a check of it needs, a kilobyte each."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daso.data.check.near_copies import THUMBNAIL_SIDE, thumbnail
from daso.data.duplicates import digest
from daso.data.images.decode import ImageHeader, decode
from daso.data.images.encoded import (
    Layout,
    choose_layout,
    quiet,
    read_headers,
    square_layout,
    work_through,
)
from daso.data.listing import PARTS, Listing
from daso.data.source import Source
from daso.errors import DataError


@dataclass(frozen=True)
class Look:
    """What is kept of one image."""

    content: bytes
    pixels: bytes
    thumbnail: npt.NDArray[np.uint8]
    hash: int


@dataclass
class PartScan:
    """What is kept of the N images of a part.

    Attributes:
        labels: int64 (N,), -1 where unknown.
        name_of: gives the name of image i.
        headers: by index; none of an image that cannot be read.
        reasons: by index, why an image cannot be read.
        content: of each the digest of its file, b"" where it has none.
        pixels: of each the digest of its pixels as training takes them, b"" where it cannot be read.
        thumbnails: uint8 (N, 16, 16, 3).
        hashes: uint64 (N,), perceptual.
    """

    labels: npt.NDArray[np.int64]
    name_of: Callable[[int], str]
    headers: dict[int, ImageHeader]
    reasons: dict[int, str]
    content: list[bytes]
    pixels: list[bytes]
    thumbnails: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Of each image whether it can be read, (N,)."""
        return np.array([bool(pixels) for pixels in self.pixels], dtype=bool)


@dataclass(frozen=True)
class Scan:
    """A look at all parts, and the shape (C, H, W) that training takes; None if nothing can be read."""

    parts: Mapping[str, PartScan]
    shape: tuple[int, int, int] | None


def scan_listing(
    listing: Listing, size_of: Callable[[int], int | None], progress: Callable[[int, int], None]
) -> Scan:
    """Read every image of a listing once for its header and once for its pixels, and keep none.

    Args:
        listing: what to read.
        size_of: given the side that the images would have, returns ``open_source``'s size.
        progress: called with images done and images in all.

    Raises:
        OptionError: the size is not positive.
    """
    reasons: dict[tuple[str, int], str] = {}
    with quiet():
        headers = read_headers(listing.pools, reasons)
        layout = choose_layout(list(headers.values())) if headers else None
        size = size_of(0 if layout is None else max(layout.height, layout.width))
        if size is not None:
            square_layout(size)
            if layout is not None:
                layout = dataclasses.replace(layout, height=size, width=size, square=size)
        total, done = sum(map(len, listing.pools.values())), 0
        parts: dict[str, PartScan] = {}
        for part, pool in listing.pools.items():
            bad = {index: reason for (owner, index), reason in reasons.items() if owner == part}
            found = _empty(pool.labels, pool.name_of)
            found.headers = {
                index: header for (owner, index), header in headers.items() if owner == part
            }
            found.reasons = bad
            looks = (
                ()
                if layout is None
                else work_through(pool, partial(_look, layout=layout), set(bad))
            )
            for index, look in enumerate(looks):
                if isinstance(look, Look):
                    _keep(found, index, look)
                elif look:
                    found.reasons[index] = look
                done += 1
                progress(done, total)
            parts[part] = found
    shape = None
    if layout is not None:
        shape = (layout.channels or 3, layout.height, layout.width)
    return Scan(parts, shape)


def scan_source(source: Source, progress: Callable[[int, int], None]) -> Scan:
    """Look at every image of a source that is decoded already."""
    pools = {part: pool for part in PARTS if (pool := getattr(source, part)) is not None}
    total, done = sum(map(len, pools.values())), 0
    parts: dict[str, PartScan] = {}
    for part, pool in pools.items():
        found = _empty(pool.labels, partial(_numbered, part, pool.paths))
        channels, height, width = pool.images.shape[1:]
        header = ImageHeader(height, width, channels == 1)
        found.headers = dict.fromkeys(range(len(pool)), header)
        for index, image in enumerate(_images(pool.images)):
            small, value = thumbnail(image)
            _keep(found, index, Look(b"", digest(image), small, value))
            done += 1
            progress(done, total)
        parts[part] = found
    channels, height, width = source.train.images.shape[1:]
    return Scan(parts, (channels, height, width))


def _images(images: npt.NDArray[np.generic]) -> Iterable[npt.NDArray[np.uint8]]:
    for image in images:
        yield np.ascontiguousarray(image, dtype=np.uint8)


def _numbered(part: str, paths: tuple[str, ...], index: int) -> str:
    return paths[index] if paths else f"{part} image {index}"


def _look(source: Path | bytes, layout: Layout) -> Look:
    if isinstance(source, bytes):
        content = hashlib.blake2b(source, digest_size=16).digest()
    else:
        try:
            with source.open("rb") as file:
                content = hashlib.file_digest(
                    file, partial(hashlib.blake2b, digest_size=16)
                ).digest()
        except OSError as error:
            raise DataError(error.strerror or str(error)) from error
    pixels = decode(source, channels=layout.channels, size=layout.square)
    if pixels.shape[1:] != (layout.height, layout.width):
        raise DataError(
            f"decodes to {pixels.shape}, while its header says {layout.height} x {layout.width}"
        )
    return Look(content, digest(pixels), *thumbnail(pixels))


def _empty(labels: npt.NDArray[np.int64], name_of: Callable[[int], str]) -> PartScan:
    count = len(labels)
    thumbnails = np.zeros((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), dtype=np.uint8)
    hashes = np.zeros(count, dtype=np.uint64)
    return PartScan(labels, name_of, {}, {}, [b""] * count, [b""] * count, thumbnails, hashes)


def _keep(found: PartScan, index: int, look: Look) -> None:
    found.content[index], found.pixels[index] = look.content, look.pixels
    found.thumbnails[index], found.hashes[index] = look.thumbnail, look.hash
