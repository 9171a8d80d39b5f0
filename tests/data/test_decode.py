"""Every kind of image becomes uint8 (C, H, W) as a viewer would show it."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_files import encoded, png_header, png_of_chunks
from PIL import Image

from daso.data.images.decode import decode, decode_for_model, read_header, to_pixels
from daso.errors import DataError

DEEP = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
EIGHT = [0, 1, 128, 255]
"""The same in 8 bits."""


def colors(height: int = 6, width: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_colors_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for form in ("PNG", "BMP", "TIFF"):
        path.write_bytes(encoded(Image.fromarray(colors()), form))
        assert np.array_equal(decode(path), colors().transpose(2, 0, 1)), form


def test_gray_has_one_channel_unless_three_are_wanted() -> None:
    grey = colors()[:, :, 0]
    content = encoded(Image.fromarray(grey), "PNG")
    assert np.array_equal(decode(content), grey[None])
    assert np.array_equal(decode(content, channels=3), np.stack([grey] * 3))
    assert read_header(content).grey


def test_black_and_white_becomes_0_and_255() -> None:
    content = encoded(Image.fromarray(np.eye(4, dtype=bool)), "PNG")
    assert np.array_equal(decode(content)[0], np.eye(4, dtype=np.uint8) * 255)


def test_16_bit_gray_is_scaled_not_clipped() -> None:
    for form in ("PNG", "TIFF"):
        content = encoded(Image.fromarray(DEEP), form)
        assert decode(content).tolist() == [[EIGHT]], form
        assert read_header(content).grey


def test_pixels_without_a_fixed_range_are_refused_with_the_reason() -> None:
    ramp = np.array([[0, 100, 255]])
    for content, reason in (
        (encoded(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)), "TIFF"), "signed"),
        (encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"), "floating-point"),
        (tiff(ramp.astype(np.uint32)[..., None], 1), "32-bit"),
        (tiff(ramp.astype(np.int32)[..., None], 1, t339=2), "signed"),
        (tiff(ramp.astype(np.int16)[..., None], 1, t339=2), "signed"),
        (tiff(ramp.astype(np.uint8)[..., None], 1, t339=2), "signed"),
    ):
        with pytest.raises(DataError, match=f"{reason} pixels.*8 or 16 bits"):
            decode(content)
    with pytest.raises(DataError, match=r"TIFF.*8 or 16 bits"):  # Pillow knows no such depth
        decode(tiff(ramp.astype(np.uint64)[..., None], 1))


def test_12_bit_gray_is_scaled_by_its_own_range() -> None:
    content = bytearray(tiff(np.zeros((1, 4, 1), np.uint8), 1))
    packed = bytes([0x00, 0x00, 0x10, 0x80, 0x8F, 0xFF])  # 0, 16, 2056, 4095
    place = content.index(struct.pack("<HHIHH", 258, 3, 1, 8, 0))
    content[place + 8 : place + 10] = struct.pack("<H", 12)
    assert decode(bytes(content[:-4]) + packed).tolist() == [[[0, 1, 128, 255]]]


def test_transparency_is_laid_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 3] = 0, 128, 255
    for form in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(pixels), form))[:, 0].tolist() == [[255, 127, 0]] * 3
    lossless = decode(encoded(Image.fromarray(pixels), "WEBP", lossless=True))
    assert lossless[:, 0].tolist() == [[255, 127, 0]] * 3
    grey = Image.fromarray(pixels[:, :, [0, 3]])
    assert grey.mode == "LA"
    assert decode(encoded(grey, "PNG")).tolist() == [[[255, 127, 0]]]
    for colors_of, extra in (([0, 0, 0], 2), ([0, 64, 0], 1)):
        # Premultiplied, 64 of 128 is half bright.
        stored = np.stack([colors_of, [0, 128, 255]], -1).astype(np.uint8)[None]
        content = tiff(stored, 1, t338=extra)
        assert read_header(content).grey
        assert decode(content)[0, 0, 1] in ((127,) if extra == 2 else (190, 191))
    marked = Image.fromarray(DEEP)
    content = encoded(marked, "PNG", transparency=257)
    assert decode(content).tolist() == [[[0, 255, 128, 255]]]


def test_palette_and_its_transparent_color() -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert decode(encoded(image, "PNG"))[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    content = encoded(image, "PNG", transparency=1)
    assert decode(content)[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255]]
    assert not read_header(content).grey


def test_cmyk_becomes_rgb() -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        pixels = decode(encoded(red, form))
        assert pixels.shape == (3, 16, 16)
        assert np.abs(pixels.mean(axis=(1, 2)) - (250, 10, 10)).max() < 6


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        pixels = decode(content)
        assert pixels.shape == (3, 4, 4)
        assert pixels[0].min() > 200 > 50 > pixels[2].max()


def test_exif_orientation_is_applied() -> None:
    seen = np.zeros((32, 48), dtype=np.uint8)
    seen[:16, :16] = 255
    # The stored pixels that a viewer turns into `seen`.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: np.rot90(a, -1),
    }
    wrong = []
    formats = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
    for form, orientation in itertools.product(formats, undo):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(np.ascontiguousarray(undo[orientation](seen))).convert("RGB")
        content = encoded(stored, form, exif=exif)
        header, read = read_header(content), [decode(content, channels=1)]
        with Image.open(io.BytesIO(content)) as image:
            read += [to_pixels(image, channels=1), to_pixels(image, channels=1)]
        sizes = (*(pixels.shape for pixels in read), header.height, header.width)
        expected = ((1, 32, 48),) * 3 + (32, 48)
        if sizes != expected or np.abs(np.stack(read).astype(int) - seen).mean() >= 3:
            wrong.append((form, orientation, sizes))
    assert not wrong


def test_an_opened_photograph_is_decoded_as_its_file_is(tmp_path: Path) -> None:
    """A JPEG several times as large as the model's side is reduced while it is decoded."""
    random = np.random.default_rng(0)
    photo, file = random.integers(0, 256, (90, 120, 3), np.uint8), tmp_path / "photo.jpg"
    Image.fromarray(photo).save(file, quality=95)
    expected = decode_for_model(file, (3, 16, 16))
    with Image.open(file) as image:
        np.testing.assert_array_equal(decode_for_model(image, (3, 16, 16)), expected)
        np.testing.assert_array_equal(decode_for_model(image, (3, 16, 16)), expected)
        whole = np.asarray(image)  # what the caller gets is not reduced
        np.testing.assert_array_equal(whole, np.asarray(Image.open(file)))
        # Once it is decoded, its pixels count.
        decoded = decode_for_model(image, (3, 16, 16))
        np.testing.assert_array_equal(decoded, to_pixels(Image.fromarray(whole), size=16))


def test_resizing_takes_the_central_square() -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 200
    pixels = decode(encoded(Image.fromarray(wide), "PNG"), size=8)
    assert pixels.shape == (3, 8, 8)
    assert (pixels[:, :, 1:7] == 200).all()


def test_a_large_jpeg_is_reduced_while_decoding_and_looks_the_same() -> None:
    smooth = np.linspace(0, 255, 400 * 300).reshape(300, 400).astype(np.uint8)
    image = Image.fromarray(smooth).convert("RGB")
    from_jpeg = decode(encoded(image, "JPEG", quality=95), size=32)
    from_png = decode(encoded(image, "PNG"), size=32)
    assert np.abs(from_jpeg.astype(int) - from_png).max() < 8


def test_an_extreme_aspect_ratio_needs_little_memory() -> None:
    assert decode(encoded(Image.new("L", (60_000, 1)), "PNG"), size=224).shape == (1, 224, 224)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_damaged_files_raise_data_errors_only() -> None:
    generator = np.random.default_rng(1)
    for form in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"):
        whole = encoded(Image.fromarray(colors(40, 40)), form)
        for length in (0, 1, 10, len(whole) // 2):
            with pytest.raises(DataError):
                decode(whole[:length])
        for _ in range(30):
            damaged = bytearray(whole)
            damaged[int(generator.integers(len(whole)))] = int(generator.integers(256))
            try:
                assert decode(bytes(damaged), channels=3).dtype == np.uint8
            except DataError:
                continue


def test_only_the_listed_formats_are_opened_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(DataError, match="not a readable image"):
        decode(path)


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("L", (30, 30)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(DataError, match="over the limit of 500"),
    ):
        decode(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="too many pixels"):
        decode(content)


def png_16_bit(pixels: np.ndarray) -> bytes:
    """Write a PNG of 16 bits a channel, (H, W, C), which Pillow cannot."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = png_header(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    return png_of_chunks(header, (b"IDAT", zlib.compress(rows)))


def tiff(pixels: np.ndarray, photometric: int, **tags: int) -> bytes:
    """Write a plain TIFF of any depth, (H, W, C), in one strip; *tags* by number, such as ``t338``."""
    height, width, channels = pixels.shape
    depth = pixels.dtype.itemsize * 8
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    values = {
        256: width,
        257: height,
        259: 1,
        262: photometric,
        277: channels,
        278: height,
        279: len(data),
    }
    values |= {int(name[1:]): value for name, value in tags.items()}
    end = 10 + 12 * (len(values) + 2) + 4
    depths = struct.pack(f"<{channels}H", *[depth] * channels)
    fields = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items()}
    inline = depths.ljust(4, b"\0") if channels < 3 else struct.pack("<I", end)
    fields[258] = struct.pack("<HHI", 258, 3, channels) + inline
    fields[273] = struct.pack("<HHII", 273, 4, 1, end + len(depths))
    body = b"".join(fields[tag] for tag in sorted(fields))
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + body + bytes(4) + depths + data


def test_16_bits_in_color_and_with_alpha() -> None:
    color, none = np.stack([DEEP] * 3, -1), 0 * DEEP
    with_alpha, inverted = np.stack([none] * 3 + [DEEP], -1), [255, 254, 127, 0]
    for content, grey, expected in (
        (png_16_bit(color), False, EIGHT),
        (png_16_bit(with_alpha), False, inverted),
        (png_16_bit(np.stack([none, DEEP], -1)), False, inverted),
        (tiff(color, 2), False, EIGHT),
        (tiff(with_alpha, 2, t338=2), False, inverted),
        (tiff(with_alpha, 5), False, inverted),  # CMYK
        (tiff(DEEP[..., None], 1), True, EIGHT),
        (tiff(DEEP[..., None], 0), True, inverted),  # white is 0
        (tiff((DEEP >> 8).astype(np.uint8)[..., None], 0), True, inverted),
    ):
        assert read_header(content).grey == grey
        assert [channel.tolist() for channel in decode(content)] == [[expected]] * (
            1 if grey else 3
        )
        assert decode(content, channels=3).shape == (3, 1, 4)


MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("L", "P", "RGB", "RGBA"),
}


def stored_as(mode: str, ramp: np.ndarray) -> Image.Image:
    picture = Image.fromarray(ramp)
    if mode == "I;16":
        return Image.fromarray(ramp.astype(np.uint16) * 257)
    if mode == "LAB":
        neutral = Image.new("L", picture.size, 128)
        return Image.merge("LAB", (picture, neutral, neutral))
    if mode == "P":
        return picture.convert("RGB").quantize(128)
    if mode in ("YCbCr", "L", "LA", "1"):
        return picture.convert(mode)
    return picture.convert("RGB").convert(mode)


def test_every_format_in_every_mode_shows_the_same_picture() -> None:
    ramp = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
    wrong = []
    for form, mode in [(form, mode) for form, modes in MODES.items() for mode in modes]:
        content = encoded(stored_as(mode, ramp), form)
        header, pixels = read_header(content), decode(content, channels=1)[0].astype(int)
        if not (
            (header.height, header.width) == (48, 64)
            and (mode != "1" or set(np.unique(pixels)) == {0, 255})
            and abs(pixels[:16].mean() - ramp[:16].mean()) < 16
            and abs(pixels[-16:].mean() - ramp[-16:].mean()) < 16
            and decode(content, channels=3, size=20).shape == (3, 20, 20)
        ):
            wrong.append((form, mode))
    assert not wrong


def test_the_pictures_that_phones_pack_into_one_jpeg() -> None:
    frames = [Image.new("RGB", (400, 300), color) for color in ("red", "blue")]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    for size in (None, 32):
        pixels = decode(content, size=size)
        assert pixels[0].min() > 200 > 50 > pixels[2].max()
    assert read_header(content).width == 400


def test_colors_count_as_colors_even_where_they_are_gray() -> None:
    grey = Image.fromarray(colors()[:, :, 0])
    assert not read_header(encoded(grey.convert("RGB"), "PNG")).grey
    assert read_header(encoded(grey, "GIF")).grey


def test_avif_is_read_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (20, 10), "red"), "AVIF"))
    assert (read_header(path).height, read_header(path).width) == (10, 20)
    assert np.abs(decode(path).mean(axis=(1, 2)) - (255, 0, 0)).max() < 6


def test_heic_is_read_by_its_plug_in_or_says_which(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    try:
        from pillow_heif import from_pillow
    except ImportError:
        path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(300))
        with pytest.raises(DataError, match="pillow-heif"):
            read_header(path)
        return
    exif = Image.Exif()
    exif[0x0112] = 6
    image = from_pillow(Image.new("RGB", (40, 20), "red"))
    image.save(path, exif=exif.tobytes(), format="HEIF")
    pixels, header = decode(path), read_header(path)
    assert pixels.shape == (3, 40, 20) == (3, header.height, header.width)
    assert np.abs(pixels.mean(axis=(1, 2)) - (255, 0, 0)).max() < 6


def test_a_model_of_another_shape_refuses_what_does_not_fit() -> None:
    content = encoded(Image.fromarray(colors(20, 30)), "PNG")
    assert decode_for_model(content, (3, 20, 30)).tolist() == decode(content).tolist()
    assert (
        decode_for_model(content, (1, 16, 16)).tolist()
        == decode(content, channels=1, size=16).tolist()
    )
    with pytest.raises(DataError, match="takes 20 x 30 only"):
        decode_for_model(content, (3, 30, 20))
