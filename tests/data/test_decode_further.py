"""Images that Pillow opens, but whose pixels, as it gives them, are not what a viewer shows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from made_files import encoded, png_chunk, png_header, png_of_chunks
from PIL import Image
from test_decode import DEEP, EIGHT, tiff

from daso.data.images.decode import decode, read_header
from daso.errors import DataError

Chunk = tuple[bytes, bytes]


def png(depth: int, kind: int, width: int, rows: Sequence[bytes], *chunks: Chunk) -> bytes:
    """Write a PNG of any depth and color type; *chunks* come before the pixels."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_of_chunks(png_header(width, len(rows), depth, kind), *chunks, (b"IDAT", pixels))


def test_the_transparent_color_of_a_png_is_one_of_its_own_depth() -> None:
    for depth in (1, 2, 4, 8):
        levels = 2**depth
        values = [0, 1, levels // 2, levels - 1]
        bits = "".join(f"{value:0{depth}b}" for value in values).ljust(8, "0")
        row = int(bits, 2).to_bytes(len(bits) // 8, "big")
        for clear in values:
            content = png(depth, 0, 4, [row], (b"tRNS", struct.pack(">H", clear)))
            shown = [255 if v == clear else round(v * 255 / (levels - 1)) for v in values]
            assert decode(content).tolist() == [[shown]], (depth, clear)
    for clear, shown in ((0x8080, [0, 1, 255, 255]), (0x0101, [0, 255, 128, 255])):
        row = np.repeat(DEEP[0], 3).astype(">u2").tobytes()
        content = png(16, 2, 4, [row], (b"tRNS", struct.pack(">HHH", *[clear] * 3)))
        assert decode(content).tolist() == [[shown]] * 3


def test_an_orientation_after_the_pixels_of_a_png_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    profile = f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()
    plain = encoded(Image.new("RGB", (30, 20)), "PNG")
    name = b"Raw profile type exif"
    for chunk in (
        (b"eXIf", data.removeprefix(b"Exif\0\0")),
        (b"tEXt", name + b"\0" + profile),
        (b"zTXt", name + b"\0\0" + zlib.compress(profile)),
    ):
        late = plain[:-12] + png_chunk(*chunk) + plain[-12:]
        assert decode(late).shape == (3, 30, 20)
        assert (read_header(late).height, read_header(late).width) == (30, 20)


def test_planes_that_would_be_read_wrong_are_refused() -> None:
    for planes in (np.stack([DEEP] * 3, -1), np.stack([DEEP] * 4, -1)):
        with pytest.raises(DataError, match="uncompressed planes of 16 bits"):
            decode(tiff(planes, 2, t284=2))
    assert decode(tiff(np.stack([DEEP] * 3, -1), 2, t284=1)).tolist() == [[EIGHT]] * 3


def test_a_bitmap_with_no_alpha_but_its_place_is_opaque() -> None:
    for alpha, shown in (((0, 0), [30, 60]), ((0, 255), [255, 60])):
        pixels = bytes([10, 20, 30, alpha[0], 40, 50, 60, alpha[1]])
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
        header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, len(pixels), 0, 0, 0, 0)
        start = 14 + len(header) + len(masks)
        content = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
        assert decode(content + header + masks + pixels)[0].tolist() == [shown]
