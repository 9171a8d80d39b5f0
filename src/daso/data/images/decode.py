"""Turn one encoded image, a file or its bytes, into a uint8 array."""

from __future__ import annotations

import functools
import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from daso.data.images.depth import load, to_eight_bits, whiten_uncovered
from daso.errors import DasoError, DataError

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".avif", ".heic", ".heif", ".hif",
})  # fmt: skip
"""Endings of files that are taken for images; what they hold is recognized by their content."""
SINGLE_STARTS = (b"\xff\xd8", b"BM")
"""First bytes of files that hold a single image: JPEG and BMP."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
"""Formats that Pillow may open, whatever the file name; formats that run programs are excluded."""
READABLE = ", ".join((*FORMATS, "HEIC"))
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
START_BYTES = 64
"""Bytes that tell what a file is that is no image."""
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG = 0x0112
PROFILE = b"Raw profile type exif\0"
"""Beginning of a text of a PNG in which ImageMagick keeps EXIF data."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation."""
PALETTE_BYTES = {"RGB": 3, "BGR": 3, "RGBX": 4, "BGRX": 4}


class UnknownImageError(DataError):
    """The content is not an image of a known format."""


class LargeImageError(DataError):
    """An image has too many pixels."""


@dataclass(frozen=True)
class ImageHeader:
    """Height and width in pixels after the EXIF orientation, and whether the image is gray.

    ``several``: whether the file holds further frames or pages, which are not read.
    """

    height: int
    width: int
    grey: bool
    several: bool = False


def read_header(source: Path | bytes) -> ImageHeader:
    """Read the size and the color of an image without decoding its pixels.

    Raises:
        DataError: the image is unreadable or too large; the message is the reason alone.
    """
    with _opened(source) as image:
        width, height = image.size
        if image.format == "PNG" and _has_late_orientation(image):
            image.load()
        if image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        return ImageHeader(height, width, _is_grey(image), _holds_several(image))


def holds_several(file: Path) -> bool:
    """Whether a file holds further frames or pages, which are not read."""
    try:
        return _start(file, 2) not in SINGLE_STARTS and read_header(file).several
    except (DataError, OSError):
        return False


def decode(
    source: Path | bytes, *, channels: int | None = None, size: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 (C, H, W).

    The EXIF orientation is applied, transparency is laid on white, gray of 12 and 16 bits is scaled
    to 8 bits, and an animation gives its first frame. Color profiles are not applied.

    Args:
        channels: 1 (gray) or 3 (RGB); None: as in the file.
        size: side to which the central square is resized (bilinear, antialiased); None: the image
            keeps its size.

    Raises:
        UnknownImageError: the content is not an image.
        LargeImageError: the image is too large.
        DataError: it is damaged or truncated, or its pixels have no fixed range. The message is the
            reason alone.
    """
    return decode_picture(source, channels=channels, size=size).pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, uint8 (C, H, W), and what its header said; see ``ImageHeader``."""

    pixels: npt.NDArray[np.uint8]
    grey: bool
    several: bool


def decode_picture(
    source: Path | bytes, *, channels: int | None = None, size: int | None = None
) -> Picture:
    """Decode one image, and tell whether it was the only one; see ``decode``."""
    with _opened(source) as image:
        grey = _is_grey(image)
        if size is not None:
            _reduce(image, size / min(image.size))
        pixels = to_pixels(image, channels=channels, size=size)
        return Picture(pixels, grey, _holds_several(image))


def decode_within(source: Path | bytes, side: int) -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 (C, H, W) to look at it, no side longer than *side* pixels."""
    with _opened(source) as image:
        _reduce(image, side / max(image.size))
        pixels = to_pixels(image)
        if max(pixels.shape[1:]) <= side:
            return pixels
        picture = to_picture(pixels)
        picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        smaller = np.asarray(picture)
        return smaller[None] if smaller.ndim == 2 else smaller.transpose(2, 0, 1)


def decode_for_model(
    source: Path | bytes | Image.Image, shape: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Decode one image as a model takes it, that was trained on images of *shape*, (C, H, W).

    Raises:
        DataError: see ``decode``; or the model takes one size, not squares, and this is another.
    """
    channels, height, width = shape
    size = height if height == width else None
    if isinstance(source, Image.Image):
        source = _content(source) or source
    if isinstance(source, Image.Image):
        pixels = to_pixels(source, channels=channels, size=size)
    else:
        pixels = decode(source, channels=channels, size=size)
    if pixels.shape != shape:
        raise DataError(
            f"is {pixels.shape[2]} x {pixels.shape[1]} pixels; this model was not trained on "
            f"squares, and takes {width} x {height} only"
        )
    return pixels


def to_pixels(
    image: Image.Image, *, channels: int | None = None, size: int | None = None
) -> npt.NDArray[np.uint8]:
    """Convert a Pillow image to uint8 (C, H, W), as ``decode`` does."""
    load(image)
    grey = _is_grey(image) if channels is None else channels == 1
    plain = whiten_uncovered(image, to_eight_bits(image, "L" if grey else "RGB"))
    turn = UPRIGHT.get(_orientation(image))
    plain = plain if turn is None else plain.transpose(turn)
    if size is not None:
        shorter = min(plain.size)
        left, top = (plain.width - shorter) / 2, (plain.height - shorter) / 2
        box = (left, top, left + shorter, top + shorter)
        plain = plain.resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(plain, dtype=np.uint8)
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return pixels, uint8 (C, H, W) with C = 1 or 3, as a Pillow image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _content(image: Image.Image) -> bytes | None:
    """Return the content of an opened JPEG file unless its pixels are decoded already."""
    file = getattr(image, "fp", None)
    if image.format != "JPEG" or not getattr(image, "tile", None) or file is None or file.closed:
        return None
    place = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(place)
    return content


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """Open an image; every error of Pillow becomes a DataError with the reason."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with _open(file) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                size = f"{image.width} x {image.height}"
                text = f"{size} pixels are over the limit of {limit:,}; make it smaller"
                raise LargeImageError(text)
            yield image
    except DasoError:
        raise
    except Image.DecompressionBombError as error:
        raise LargeImageError(f"too many pixels: {error}") from None
    # Damaged bytes make decoders raise nearly anything: OSError, SyntaxError, struct.error.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(reason or type(error).__name__) from error


def _reduce(image: Image.Image, scale: float) -> None:
    """Let a JPEG decoder reduce an image while it decodes, to no less than *scale* of its size."""
    if scale < 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _open(file: Path | io.BytesIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        start = (
            _start(file, START_BYTES) if isinstance(file, Path) else file.getvalue()[:START_BYTES]
        )
    if start[:4] in TIFF_STARTS:
        kind = "a damaged TIFF file, or of a depth or layout that is not read"
        raise DataError(f"{kind}; convert it to 8 or 16 bits per channel")
    if start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS:
        _prepare_for_heic()
        return Image.open(file, formats=("HEIF",))
    raise UnknownImageError(f"not a readable image ({READABLE}){_what_else(start)}")


def _start(file: Path, count: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(count)


def _what_else(start: bytes) -> str:
    """Return what a file is that has the place of an image, by its first bytes."""
    if not start:
        return ": the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return ": a pointer of Git LFS; fetch the images themselves with git lfs pull"
    is_page = start.lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return ": a web page, such as an error in the place of a download" if is_page else ""


@functools.cache
def _prepare_for_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise DataError(
            "HEIC photos need pillow-heif: pip install 'daso[heic]'; or convert it to JPEG"
        ) from None
    register_heif_opener()


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P" and image.palette is not None:
        # Before decoding, the palette is stored as in the file.
        kind, colors = image.palette.rawmode or image.palette.mode, bytes(image.palette.palette)
        if kind == "RGB;L":  # a TIFF file has all reds first
            return colors == 3 * colors[: len(colors) // 3]
        width = PALETTE_BYTES.get(kind)
        return width is not None and colors[0::width] == colors[1::width] == colors[2::width]
    return image.mode in ("1", "L", "LA", "La", "F", "I") or image.mode.startswith("I;16")


def _holds_several(image: Image.Image) -> bool:
    # A phone's JPEG holds the same picture for a small screen, too.
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame takes nothing from the first
        return True


def _orientation(image: Image.Image) -> int:
    # A PNG's own getexif() would decode all pixels to look for a block after them.
    value = Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _has_late_orientation(image: Image.Image) -> bool:
    """Whether a PNG has EXIF or XMP data after its pixels, where it is read last."""
    file = image.fp  # type: ignore[attr-defined]
    before, pixels = file.tell(), False
    file.seek(8)
    try:
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            text = file.read(min(length, len(PROFILE))) if kind in (b"tEXt", b"zTXt") else b""
            if pixels and (kind in (b"eXIf", b"iTXt") or text == PROFILE):
                return True
            pixels = pixels or kind == b"IDAT"
            file.seek(length + 4 - len(text), io.SEEK_CUR)
        return False
    finally:
        file.seek(before)
