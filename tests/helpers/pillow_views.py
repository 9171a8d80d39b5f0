"""The views of one image with Pillow and numpy, written for comparison only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from sklearn.datasets import load_digits, load_sample_image


def to_pillow(image: np.ndarray) -> Image.Image:
    """(C, H, W) uint8 to a Pillow image of mode L or RGB."""
    return Image.fromarray(
        image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    )


def from_pillow(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


photograph = lru_cache(load_sample_image)
digits = lru_cache(load_digits)


@lru_cache
def real_images(height: int, width: int, channels: int) -> np.ndarray:
    """Crops of two photographs, a dim one, a flat one, and two written digits, as (B, C, H, W)."""
    pictures = []
    for name, top, left in (
        ("china.jpg", 120, 200),
        ("china.jpg", 10, 30),
        ("flower.jpg", 150, 250),
    ):
        image = Image.fromarray(photograph(name)).crop(
            (left, top, left + 2 * width, top + 2 * height)
        )
        pictures.append(image.resize((width, height), Image.Resampling.BILINEAR))
    pictures.append(pictures[0].point([40 + value // 3 for value in range(256)] * 3))
    pictures.append(Image.new("RGB", (width, height), (10, 200, 77)))
    for digit in digits().images[:2]:
        gray = Image.fromarray((digit * 15.9375).astype(np.uint8))
        pictures.append(gray.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))
    mode = "L" if channels == 1 else "RGB"
    images = np.stack([from_pillow(picture.convert(mode)) for picture in pictures])
    images.flags.writeable = False
    return images


def operate(name: str, image: Image.Image, level: int, sign: int) -> Image.Image:
    share = level / 10
    size = image.size

    def affine(*matrix: float) -> Image.Image:
        return image.transform(size, Image.Transform.AFFINE, matrix)

    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(share * 0.9 + 0.05)
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    if name == "Equalize":
        return ImageOps.equalize(image)
    if name == "Posterize":
        return ImageOps.posterize(image, int(share * 4) + 4)
    if name == "Solarize":
        return ImageOps.solarize(image, 256 - int(share * 256))
    if name == "Rotate":
        return image.rotate(sign * int(share * 30))
    value = sign * share * 0.3
    if name == "ShearX":
        return affine(1, value, 0, 0, 1, 0)
    if name == "ShearY":
        return affine(1, 0, 0, value, 1, 0)
    if name == "TranslateX":
        return affine(1, 0, int(value * size[0]), 0, 1, 0)
    if name == "TranslateY":
        return affine(1, 0, 0, 0, 1, int(value * size[1]))
    assert name == "Identity"
    return image


def flip_and_crop(
    image: np.ndarray, flipped: bool, top: int, left: int, padding: int
) -> np.ndarray:
    """(C, H, W) in and out."""
    height, width = image.shape[1:]
    image = image[:, :, ::-1] if flipped else image
    image = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), "reflect")
    return image[:, top : top + height, left : left + width]


def cut_out(image: Image.Image, x: float, y: float, size: int) -> Image.Image:
    image = image.copy()
    left, top = int(max(0, x - size / 2)), int(max(0, y - size / 2))
    right, bottom = int(min(image.width, left + size)), int(min(image.height, top + size))
    fill = 127 if image.mode == "L" else (127, 127, 127)
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), fill)
    return image
