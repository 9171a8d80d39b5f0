"""Image files and tar archives, made of pixels, colors or bytes."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Member = tuple[str, bytes]
"""Name and content of a file in an archive."""


def pixels(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(image: np.ndarray) -> bytes:
    return encoded(Image.fromarray(image))


def plain_png(color: int | tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    """Return an image of one color: gray if it is one number."""
    return encoded(Image.new("L" if isinstance(color, int) else "RGB", size, color))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of any chunks, valid or not; the last one is added."""
    whole = (png_chunk(name, data) for name, data in (*chunks, (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def png_header(width: int, height: int, depth: int = 8, kind: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)


def write_image(path: Path | bytes, seed: int) -> None:
    """Write an image; a path of bytes may have a name that is not UTF-8."""
    file = Path(os.fsdecode(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(pixels(seed)))


def write_tar(
    path: Path, members: Iterable[Member], mode: str = "w", layout: int = tarfile.PAX_FORMAT
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=layout) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_shard(
    path: Path, labels: Sequence[str], mode: str = "w", *, first: int = 0, ending: str = "png"
) -> None:
    """Write images 0.png, 1.png, ... of seeds from *first* on, each with its label in a .cls."""
    members: list[Member] = []
    for number, label in enumerate(labels):
        image = png(pixels(first + number))
        members += [(f"{number}.{ending}", image), (f"{number}.cls", label.encode())]
    write_tar(path, members, mode)
