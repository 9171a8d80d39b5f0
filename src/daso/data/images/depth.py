"""Convert pixels of any depth, sign and transparency to 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from daso.errors import DataError

BITS, POLARITY, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF files."""
WHITE_IS_ZERO, UNSIGNED = 0, 1
CONVERT = "convert it to unsigned 8 or 16 bits"
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert a loaded image to "L" or "RGB": full range, transparency laid on white."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        raise DataError(f"floating-point pixels have no fixed range; {CONVERT}")
    if set(tags.get(SAMPLE_FORMAT, (UNSIGNED,))) - {UNSIGNED}:
        raise DataError(f"signed pixels have no fixed range; {CONVERT}")
    if image.mode == "I":
        raise DataError(f"32-bit pixels have no fixed range; {CONVERT}")
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _from_deep(image).convert(mode)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        # Pillow converts premultiplied gray to nothing else.
        colored = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        background = Image.new("RGBA", colored.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, colored).convert(mode)
    # Some modes convert to gray only by way of RGB.
    return (image if image.mode in ("1", "L", "RGB") else image.convert("RGB")).convert(mode)


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
