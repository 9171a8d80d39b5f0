"""Weak and strong views with Pillow, one image after another."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Array = npt.NDArray[np.uint8]
PillowOperation = Callable[[Image.Image, float, int], Image.Image]


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


POOL: tuple[PillowOperation, ...] = (
    lambda image, share, sign: ImageOps.autocontrast(image),
    lambda image, share, sign: ImageEnhance.Brightness(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: ImageEnhance.Color(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: ImageEnhance.Contrast(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: ImageOps.equalize(image),
    lambda image, share, sign: image,
    lambda image, share, sign: ImageOps.posterize(image, int(share * 4) + 4),
    lambda image, share, sign: image.rotate(sign * int(share * 30)),
    lambda image, share, sign: ImageEnhance.Sharpness(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: affine(image, 1, sign * share * 0.3, 0, 0, 1, 0),
    lambda image, share, sign: affine(image, 1, 0, 0, sign * share * 0.3, 1, 0),
    lambda image, share, sign: ImageOps.solarize(image, 256 - int(share * 256)),
    lambda image, share, sign: affine(image, 1, 0, int(sign * share * 0.3 * image.width), 0, 1, 0),
    lambda image, share, sign: affine(image, 1, 0, 0, 0, 1, int(sign * share * 0.3 * image.height)),
)


class Augmentation:
    """Draws views of single square images of *size* pixels."""

    def __init__(self, size: int, padding: int, cutout: int, generator: random.Random) -> None:
        self.size, self.padding, self.cutout = size, padding, cutout
        self.generator = generator
        # numpy.pad is slow on small images; looking rows and columns up makes the comparison a fair
        # one.
        self._places = np.pad(np.arange(size), padding, "reflect")

    def weak(self, image: Array) -> Array:
        """Flip and crop one image, (H, W) or (H, W, 3)."""
        draw = self.generator
        top, left = draw.randint(0, 2 * self.padding), draw.randint(0, 2 * self.padding)
        columns = self._places[left : left + self.size]
        if draw.random() < 0.5:
            columns = self.size - 1 - columns
        return image.take(self._places[top : top + self.size], 0).take(columns, 1)

    def strong(self, array: Array) -> Array:
        """Return a weak view of one image after RandAugment(2, 10), p = 0.5, and cutout."""
        draw, size = self.generator, self.size
        image = Image.fromarray(self.weak(array))
        for operation in draw.choices(POOL, k=2):
            if draw.random() < 0.5:
                image = operation(image, draw.randint(1, 9) / 10, draw.choice((-1, 1)))
        x = int(max(0, draw.uniform(0, size) - self.cutout / 2))
        y = int(max(0, draw.uniform(0, size) - self.cutout / 2))
        corners = (x, y, min(size, x + self.cutout), min(size, y + self.cutout))
        ImageDraw.Draw(image).rectangle(corners, 127 if image.mode == "L" else (127, 127, 127))
        return np.asarray(image)
