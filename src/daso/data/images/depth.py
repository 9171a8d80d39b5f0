"""Convert pixels of any depth, sign and transparency to 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from daso.errors import DataError

BITS, COMPRESSION, POLARITY, PLANES, SAMPLE_FORMAT = 258, 259, 262, 284, 339
"""Tags of TIFF files."""
WHITE_IS_ZERO, UNSIGNED = 0, 1
RAW, APART = 1, 2
CONVERT = "convert it to unsigned 8 or 16 bits"
CLEAR_LEVELS = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}
"""Factor from a PNG's transparent color, in its own depth, to Pillow's pixels."""
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def load(image: Image.Image) -> None:
    """Decode the pixels of an image, and scale its transparent color as they are."""
    tiles = getattr(image, "tile", None)
    factor = CLEAR_LEVELS.get(str(tiles[0].args)) if tiles and image.format == "PNG" else None
    if tiles and image.mode == "L":
        image.palette = None  # which the frames of a GIF have, whose own palette is gray
    if tiles and image.format == "TIFF":
        # From a file Pillow maps the pixels of a turned image as if they were upright.
        values = vars(image)
        name, values["filename"] = values.get("filename"), ""
        image.load()
        values["filename"] = name
    image.load()
    clear = image.info.get("transparency")
    if factor is not None and isinstance(clear, int):
        image.info["transparency"] = int(clear * factor)
    elif factor is not None and isinstance(clear, tuple):
        image.info["transparency"] = tuple(int(level * factor) for level in clear)


def to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert a loaded image to "L" or "RGB": full range, transparency laid on white."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        raise DataError(f"floating-point pixels have no fixed range; {CONVERT}")
    if set(tags.get(SAMPLE_FORMAT, (UNSIGNED,))) - {UNSIGNED}:
        raise DataError(f"signed pixels have no fixed range; {CONVERT}")
    bits, apart = tags.get(BITS, (8,))[0], tags.get(PLANES) == APART
    if apart and image.mode in ("LA", "LAB"):
        # Pillow mixes up the planes, without a word, or takes deeper ones for 8 bits.
        raise DataError(f"planes of {image.mode} are not read; save the channels together")
    if apart and tags.get(COMPRESSION) == RAW and bits != 8:
        raise DataError(f"uncompressed planes of {bits} bits are not read; save it compressed")
    if image.mode == "I":
        raise DataError(f"32-bit pixels have no fixed range; {CONVERT}")
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _from_deep(image).convert(mode)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        # Pillow converts premultiplied gray to nothing else.
        colored = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        if image.format == "BMP" and not colored.getchannel("A").getbbox():
            return image.convert("RGB").convert(mode)  # programs of Windows leave it empty
        background = Image.new("RGBA", colored.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, colored).convert(mode)
    # Some modes convert to gray only by way of RGB.
    return (image if image.mode in ("1", "L", "RGB") else image.convert("RGB")).convert(mode)


def whiten_uncovered(image: Image.Image, plain: Image.Image) -> Image.Image:
    """Return an image in "L" or "RGB" with white where the first frame of a GIF has no pixels.

    Browsers show nothing there; Pillow fills it with the first color of the palette.
    """
    extent = getattr(image, "dispose_extent", None)
    if image.format != "GIF" or not extent or extent == (0, 0, *plain.size) or image.tell():
        return plain
    canvas = Image.new(plain.mode, plain.size, "white")
    canvas.paste(plain.crop(extent), extent[:2])
    return canvas


def _from_deep(image: Image.Image) -> Image.Image:
    """Scale gray of up to 16 bits to 8."""
    tags = getattr(image, "tag_v2", {})
    deep = np.asarray(image).astype(np.int64)
    most = 2 ** tags.get(BITS, (16,))[0] - 1
    levels = ((deep * 255 + most // 2) // most).clip(0, 255).astype(np.uint8)
    if tags.get(POLARITY) == WHITE_IS_ZERO:
        levels = 255 - levels  # Pillow inverts 8-bit images itself
    if isinstance(clear := image.info.get("transparency"), int):
        levels[deep == clear] = 255
    return Image.fromarray(levels)
