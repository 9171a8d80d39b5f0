"""Turn one encoded image, a file or its bytes, into a uint8 array."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from daso.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Formats that Pillow may open, whatever the file name; formats that run programs are excluded."""
ORIENTATION_TAG = 0x0112
PALETTE_BYTES = {"RGB": 3, "BGR": 3, "RGBX": 4, "BGRX": 4}
TIFF_POLARITY, WHITE_IS_ZERO = 262, 0


@dataclass(frozen=True)
class ImageHeader:
    """Height and width in pixels after the EXIF orientation, and whether the image is gray."""

    height: int
    width: int
    grey: bool


def read_header(source: Path | bytes) -> ImageHeader:
    """Read the size and the color of an image without decoding its pixels.

    Raises:
        DataError: the image is unreadable or too large; the message is the reason alone.
    """
    with _opened(source) as image:
        width, height = image.size
        if image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        return ImageHeader(height, width, _is_grey(image))


def decode(
    source: Path | bytes, *, channels: int | None = None, size: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image to uint8 (C, H, W).

    The EXIF orientation is applied, transparency is laid on white, 16-bit gray is scaled to 8 bits,
    and an animation gives its first frame. Color profiles are not applied.

    Args:
        channels: 1 (gray) or 3 (RGB); None: as in the file.
        size: side to which the central square is resized (bilinear, antialiased); None: the image
            keeps its size.

    Raises:
        DataError: the image is damaged, truncated or too large; the message is the reason alone.
    """
    with _opened(source) as image:
        shorter = min(image.size)
        if size is not None and shorter > size:
            # Lets the JPEG decoder reduce the image while it decodes.
            scale = size / shorter
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        return to_pixels(image, channels=channels, size=size)


def to_pixels(
    image: Image.Image, *, channels: int | None = None, size: int | None = None
) -> npt.NDArray[np.uint8]:
    """Convert a Pillow image to uint8 (C, H, W), as ``decode`` does; *image* is turned upright."""
    image.load()
    grey = _is_grey(image) if channels is None else channels == 1
    ImageOps.exif_transpose(image, in_place=True)
    plain = _to_eight_bits(image, "L" if grey else "RGB")
    if size is not None:
        shorter = min(plain.size)
        left, top = (plain.width - shorter) / 2, (plain.height - shorter) / 2
        box = (left, top, left + shorter, top + shorter)
        plain = plain.resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(plain, dtype=np.uint8)
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """Open an image; every error of Pillow becomes a DataError with the reason."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                size = f"{image.width} x {image.height}"
                raise DataError(f"{size} pixels are over the limit of {limit:,}; make it smaller")
            yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not a readable image ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels: {error}") from None
    # Damaged bytes make decoders raise nearly anything: OSError, SyntaxError, struct.error.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(reason or type(error).__name__) from error


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P" and image.palette is not None:
        # Before decoding, the palette is stored as in the file.
        width = PALETTE_BYTES.get(image.palette.rawmode or image.palette.mode)
        colors = bytes(image.palette.palette)
        return width is not None and colors[0::width] == colors[1::width] == colors[2::width]
    return image.mode in ("1", "L", "LA", "F", "I") or image.mode.startswith("I;16")


def _orientation(image: Image.Image) -> int:
    # For PNG, getexif() would decode all pixels to look for a block after them.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise DataError("floating-point pixels have no fixed range; convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise DataError("32-bit pixels beyond 0 to 65535; convert it to 8 or 16 bits")
        levels = ((deep * 255 + 32767) // 65535).astype(np.uint8)
        if getattr(image, "tag_v2", {}).get(TIFF_POLARITY) == WHITE_IS_ZERO:
            levels = 255 - levels  # Pillow inverts 8-bit images itself
        return Image.fromarray(levels).convert(mode)
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        colored = image.convert("RGBA")
        background = Image.new("RGBA", colored.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, colored).convert(mode)
    # Some modes convert to gray only by way of RGB.
    return (image if image.mode in ("1", "L", "RGB") else image.convert("RGB")).convert(mode)
