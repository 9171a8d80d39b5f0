"""The one shape of all decoded images of a data set, and its choice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daso.data.images.decode import ImageHeader, Picture, decode_picture
from daso.errors import DataError

LARGEST_KEPT = 96
"""Images that all have one size keep it up to this side, in pixels."""
LARGEST_CHOSEN = 224

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """The shape of every decoded image.

    Attributes:
        channels: 1 or 3; None: 1 if all images turn out to be gray, else 3.
        height, width: in pixels.
        square: side to resize the central square to; None: images keep their size.
    """

    channels: int | None
    height: int
    width: int
    square: int | None

    def decode(self, source: Path | bytes) -> npt.NDArray[np.uint8]:
        """Decode one image to this shape.

        Raises:
            DataError: it is unreadable or has another size; the message is the reason alone.
        """
        return self.decode_picture(source).pixels

    def decode_picture(self, source: Path | bytes) -> Picture:
        """Decode one image to this shape, and tell whether it was the only one; see ``decode``."""
        picture = decode_picture(source, channels=self.channels, size=self.square)
        _, height, width = picture.pixels.shape
        if (height, width) != (self.height, self.width):
            raise DataError(
                f"is {width} x {height} pixels, expected {self.width} x {self.height}; --size N "
                "gives all images one size"
            )
        return picture


def square_layout(size: int, channels: int | None = None) -> Layout:
    """Return the layout of images resized to squares of *size* pixels."""
    return Layout(channels, size, size, size)


def choose_layout(headers: Sequence[ImageHeader]) -> Layout:
    """Choose one shape for images of any sizes.

    It is gray only if all images are. Images that share one size of at most 96 x 96 keep it. Others
    become squares of the median shorter side, rounded to a multiple of 8, from 8 to 224.
    """
    channels = 1 if all(header.grey for header in headers) else 3
    sizes = {(header.height, header.width) for header in headers}
    height, width = next(iter(sizes))
    if len(sizes) == 1 and max(height, width) <= LARGEST_KEPT:
        return Layout(channels, height, width, None)
    median = float(np.median([min(header.height, header.width) for header in headers]))
    side = min(max(8, 8 * round(median / 8)), LARGEST_CHOSEN)
    shapes = f"all {width} x {height}" if len(sizes) == 1 else f"of {len(sizes)} different sizes"
    logger.info("images are %s pixels; resizing them to %d x %d", shapes, side, side)
    return square_layout(side, channels)
