"""Damaged and hostile images end in an error with a reason, or in pixels of the right shape."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import QUICK, damaged, put, survives
from hypothesis import given
from hypothesis import strategies as st
from made_files import encoded, png_header, png_of_chunks
from PIL import Image

from daso.data.images.decode import decode, read_header
from daso.data.open import open_source
from daso.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


def photo(mode: str = "RGB", size: tuple[int, int] = (24, 20)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def with_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    exif.get_ifd(0x8769)[0x9286] = b"comment"
    return exif


def samples() -> list[bytes]:
    found = [encoded(photo(), form) for form in FORMATS]
    found += [encoded(photo(), form, exif=with_exif()) for form in ("JPEG", "PNG", "WEBP", "TIFF")]
    found += [encoded(photo("P"), form) for form in ("PNG", "GIF", "BMP", "TIFF")]
    found += [
        encoded(photo("CMYK"), "JPEG"),
        encoded(photo("RGBA"), "PNG"),
        encoded(photo("L"), "TIFF"),
    ]
    found += [
        encoded(photo(), "TIFF", compression=kind)
        for kind in ("tiff_lzw", "jpeg", "packbits", "tiff_deflate")
    ]
    frames = {"save_all": True, "append_images": [photo("L"), photo()]}
    found += [encoded(photo(), form, **frames) for form in ("GIF", "WEBP", "PNG", "TIFF", "MPO")]
    found.append(encoded(photo(), "JPEG", progressive=True))
    return found


SAMPLES = samples()


def decodes(content: bytes) -> None:
    def read() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read_header(content)
            whole = decode(content, channels=3)
            assert whole.dtype == np.uint8
            assert whole.shape[0] == 3
            # A TIFF's size is known for sure only once its pixels are; the pool checks it again.
            assert whole.shape[1] * whole.shape[2] == header.height * header.width
            assert decode(content, channels=1, size=8).shape == (1, 8, 8)

    survives(read)


@QUICK
@given(damaged(SAMPLES))
def test_damaged_images(content: bytes) -> None:
    decodes(content)


def test_cut_at_any_byte() -> None:
    for form in FORMATS:
        whole = encoded(photo(size=(12, 10)), form)
        expected, readable = decode(whole), 0
        for length in range(len(whole)):
            try:
                pixels = decode(whole[:length])
            except DataError:
                continue
            readable += 1
            assert np.array_equal(pixels, expected), (form, length)
        assert readable <= 20, form  # what follows the pixels: an end mark, padding


@QUICK
@given(st.binary(max_size=400), st.sampled_from(FORMATS))
def test_any_bytes_after_a_right_beginning(content: bytes, form: str) -> None:
    decodes(encoded(photo(), form)[:16] + content)


@QUICK
@given(
    st.one_of(st.binary(max_size=200), damaged([with_exif().tobytes()])),
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
)
def test_any_exif(exif: bytes, form: str) -> None:
    try:
        content = encoded(photo(), form, exif=b"Exif\0\0" + exif)
    except (ValueError, OSError):  # the writer refuses it
        return
    decodes(content)


def ifd(*entries: tuple[int, int, int, bytes]) -> bytes:
    fields = b"".join(
        struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields + b"\x08\0\0\0"


def test_exif_that_lies_leaves_the_pixels_alone() -> None:
    """Try an orientation of 9, endless entries, wrong types, loops, and places beyond the end."""
    for exif in (
        ifd((0x0112, 3, 1, struct.pack("<HH", 9, 0))),
        ifd((0x0112, 3, 0xFFFFFFFF, struct.pack("<I", 8))),
        ifd((0x0112, 2, 4, b"six\0")),
        ifd((0x0112, 12, 1, struct.pack("<I", 8))),
        ifd((0x8769, 4, 1, struct.pack("<I", 8))),
        ifd((0x8769, 4, 1, struct.pack("<I", 0xFFFFFFF0))),
        ifd(*[(0x0112, 3, 1, struct.pack("<HH", n, 0)) for n in range(9)]),
        b"II*\0" + b"\xff" * 60,
        b"MM\0*\0\0\0\x08\xff\xff",
    ):
        content = encoded(photo(), "PNG", exif=exif)
        pixels = survives(lambda content=content: decode(content))
        if pixels is not None:
            assert sorted(np.asarray(pixels).shape) == [3, 20, 24]


def png(
    width: int,
    height: int,
    depth: int = 8,
    kind: int = 2,
    data: bytes = b"",
    *more: tuple[bytes, bytes],
) -> bytes:
    header = png_header(width, height, depth, kind)
    return png_of_chunks(header, *more, (b"IDAT", zlib.compress(data)))


@QUICK
@given(
    st.sampled_from([0, 1, 2, 9459, 2**16, 2**31 - 1, 2**31, 2**32 - 1]),
    st.sampled_from([0, 1, 2, 9459, 2**16, 2**31 - 1, 2**31, 2**32 - 1]),
    st.sampled_from([1, 2, 4, 8, 16, 3]),
    st.sampled_from([0, 2, 3, 4, 6, 7]),
)
def test_sizes_that_are_not_there(width: int, height: int, depth: int, kind: int) -> None:
    content = png(width, height, depth, kind, bytes(50))
    assert survives(lambda: decode(content, size=8)) is None or width * height <= 50 * 8


def test_what_is_no_image_whatever_it_is_called(tmp_path: Path) -> None:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    for name in ("image.png", "image.jpg", "image.gif"):
        for content in (b"", b"\0" * 100, svg, b"GIF89a", b"%PDF-1.7", b"P6 9 9 255 "):
            with pytest.raises(DataError):
                decode(put(tmp_path / name, content))


@QUICK
@given(damaged(SAMPLES))
def test_a_folder_with_a_damaged_image(tmp_path: Path, content: bytes) -> None:
    for number, name in enumerate(("cat", "dog")):
        put(
            tmp_path / "labeled" / name / "0.png",
            encoded(Image.new("RGB", (9, 9), (number, 0, 0)), "PNG"),
        )
    put(tmp_path / "unlabeled" / "0.png", content)
    source = open_source(str(tmp_path), size=8, skip_bad=True)
    assert len(source.train) == 2
    assert len(source.skipped) + (0 if source.unlabeled is None else len(source.unlabeled)) == 1
