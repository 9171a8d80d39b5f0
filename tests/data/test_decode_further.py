"""Images that Pillow opens, but whose pixels, as it gives them, are not what a viewer shows."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_files import encoded, png_chunk, png_header, png_of_chunks
from PIL import Image
from test_decode import DEEP, EIGHT, stored_as, tiff

from daso.data.images.cache import Cache
from daso.data.images.decode import (
    decode,
    decode_for_model,
    decode_within,
    read_header,
    to_pixels,
)
from daso.data.images.encoded import EncodedImages
from daso.data.images.layout import Layout
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


def compressed_planes(planes: np.ndarray, photometric: int) -> bytes:
    """Write a TIFF of 8-bit planes, (C, H, W), each in a compressed strip."""
    count, height, width = planes.shape
    strips = [zlib.compress(plane.tobytes()) for plane in planes]
    starts = [8 + sum(map(len, strips[:number])) for number in range(count)]
    first = 8 + sum(map(len, strips))  # of the lists, each of 4 bytes a plane
    values = {256: width, 257: height, 259: 8, 262: photometric, 277: count, 278: height, 284: 2}
    lists = {258: [8] * count, 273: starts, 279: list(map(len, strips))}
    fields = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items()}
    for number, tag in enumerate(lists):
        fields[tag] = struct.pack("<HHII", tag, 4, count, first + 4 * count * number)
    if photometric == 1:
        fields[338] = struct.pack("<HHII", 338, 4, 1, 2)  # transparency
    body = b"".join(fields[tag] for tag in sorted(fields))
    numbers = struct.pack(f"<{3 * count}I", *(one for some in lists.values() for one in some))
    start = struct.pack("<I", first + len(numbers))
    return (
        b"II*\0" + start + b"".join(strips) + numbers + struct.pack("<H", len(fields)) + body
    ) + bytes(4)


def test_compressed_planes_are_read_right_or_refused() -> None:
    planes = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)
    assert decode(compressed_planes(planes, 2)).tolist() == planes.tolist()
    for count, photometric, mode in ((2, 1, "LA"), (3, 8, "LAB")):
        with pytest.raises(DataError, match=f"planes of {mode} are not read"):
            decode(compressed_planes(planes[:count], photometric))


def test_a_file_of_a_turned_tiff_shows_what_its_bytes_show(tmp_path: Path) -> None:
    ramp = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
    for mode in ("L", "I;16", "RGB", "RGBA", "CMYK"):
        picture = stored_as(mode, ramp) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
        for orientation, turned in ((1, ramp), (3, ramp[::-1, ::-1]), (6, np.rot90(ramp, -1))):
            file = tmp_path / "image.tif"
            picture.save(file, tiffinfo={0x0112: orientation})
            header = read_header(file)
            assert decode(file, channels=1)[0].tolist() == turned.tolist(), (mode, orientation)
            assert (header.height, header.width) == turned.shape
            with Image.open(file) as opened:
                assert to_pixels(opened, channels=1)[0].tolist() == turned.tolist()
                assert opened.filename == str(file)


def test_a_gray_palette_makes_a_gray_image_in_every_format() -> None:
    levels = np.arange(256, dtype=np.uint8)
    for gray in (True, False):
        image = Image.fromarray(levels.reshape(16, 16), "P")
        image.putpalette(np.stack([levels, levels, levels if gray else levels[::-1]], 1).tobytes())
        for form in ("PNG", "GIF", "BMP", "TIFF"):
            content = encoded(image, form)
            assert (read_header(content).grey, len(decode(content))) == (gray, 1 if gray else 3)


def test_a_gray_frame_keeps_its_own_palette() -> None:
    grey, colors = (
        np.array([[n, n if grey else 255 - n, n] for n in range(256)], np.uint8).tobytes()
        for grey in (True, False)
    )
    content = encoded(Image.fromarray(np.arange(6, dtype=np.uint8)[None]), "GIF")
    start, frame = content[:10], content[content.index(b"\x2c", 13) :]
    assert not frame[9] & 128
    whole = start + b"\xf7\0\0" + colors + frame[:9] + b"\x87" + grey + frame[10:]
    assert decode(whole, channels=3).tolist() == [[list(range(6))]] * 3


def on_canvas(content: bytes, size: tuple[int, int], place: tuple[int, int]) -> bytes:
    """Return a GIF whose first frame lies somewhere on a larger canvas."""
    frame = content.index(b"\x2c", 13 + (3 << (content[10] & 7) + 1))
    start = content[:6] + struct.pack("<HH", *size) + content[10:frame]
    return start + b"\x2c" + struct.pack("<HH", *place) + content[frame + 5 :]


def test_a_frame_smaller_than_its_canvas_lies_on_white_everywhere(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grey = Image.fromarray(random.integers(0, 200, (3, 2), dtype=np.uint8))
    colors = Image.fromarray(random.integers(0, 200, (3, 2, 3), dtype=np.uint8)).quantize(6)
    frames = [Image.new("RGB", (2, 3), "red"), Image.new("RGB", (2, 3), "blue")]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    for image in (encoded(grey, "GIF"), encoded(colors, "GIF"), moving.getvalue()):
        alone = decode(image, channels=3)
        expected = np.full((3, 6, 6), 255, dtype=np.uint8)
        expected[:, 2:5, 1:3] = alone
        content, file = on_canvas(image, (6, 6), (1, 2)), tmp_path / "image.gif"
        file.write_bytes(content)
        header = read_header(file)
        assert (header.height, header.width) == (6, 6)
        assert header.several == (image == moving.getvalue())
        cache = Cache(tmp_path / str(len(image)))
        cached, *_ = cache.decode("train", EncodedImages.of_files([file], [0]), Layout(3, 6, 6, 6))
        opened, loaded = Image.open(file), Image.open(file)
        loaded.load()
        for way in (
            *(decode(of, channels=3) for of in (content, file)),
            *(to_pixels(of, channels=3) for of in (opened, loaded)),
            *(decode_for_model(of, (3, 6, 6)) for of in (content, file, Image.open(file))),
            np.broadcast_to(decode_within(file, 6), (3, 6, 6)),
            np.asarray(cached)[0],
        ):
            assert np.array_equal(way, expected)
    assert decode(on_canvas(encoded(grey, "GIF"), (2, 3), (1, 2))).shape == (1, 5, 3)


def test_a_bitmap_with_no_alpha_but_its_place_is_opaque() -> None:
    for alpha, shown in (((0, 0), [30, 60]), ((0, 255), [255, 60])):
        pixels = bytes([10, 20, 30, alpha[0], 40, 50, 60, alpha[1]])
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
        header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, len(pixels), 0, 0, 0, 0)
        start = 14 + len(header) + len(masks)
        content = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
        assert decode(content + header + masks + pixels)[0].tolist() == [shown]
