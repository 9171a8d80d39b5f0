"""Views of images from a generator, or by one operation: what training does in two steps."""

from __future__ import annotations

import pillow_views
import torch
from torch import Tensor

from daso.views import OPERATIONS, Draws, WeakDraws, crop, draw, draw_weak, strong_from_draws
from daso.views.resized_crop import draw_resized, resize_parts


def batch(count: int, channels: int, height: int, width: int) -> Tensor:
    """Return real images of a size, repeated up to a count."""
    images = torch.tensor(pillow_views.real_images(height, width, channels))
    return images.repeat(count // len(images) + 1, 1, 1, 1)[:count]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weak(images: Tensor, generator: torch.Generator, **options) -> Tensor:
    return crop(images, draw_weak(len(images), generator, **options))


def strong(images: Tensor, generator: torch.Generator, *, cutout: int = 16, **options) -> Tensor:
    draws = draw(len(images), *images.shape[2:], generator, **options)
    return strong_from_draws(images, draws, cutout=cutout)


def resized_crop(images: Tensor, generator: torch.Generator, size: int | None = None) -> Tensor:
    count, _, height, width = images.shape
    draws = draw_resized(count, height, width, generator)
    return resize_parts(images, draws, height=size or height, width=size or width)


def apply(name: str, images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Apply one operation to every image at its own level and sign, and nothing else."""
    places = torch.zeros((2, len(images)), dtype=torch.int64)
    operation = torch.full((len(images), 1), OPERATIONS.index(name))
    centre = torch.zeros((len(images), 2), dtype=torch.float64)
    uncropped = WeakDraws(places[0].bool(), *places, 0)
    draws = Draws(uncropped, operation, operation >= 0, level[:, None], sign[:, None], centre)
    return strong_from_draws(images, draws, cutout=0)


def cut_out(images: Tensor, centre: Tensor, *, size: int = 16) -> Tensor:
    """Hide a square of each image at its *centre*, and change nothing else."""
    plain = draw(len(images), 1, 1, seeded(), flip=False, padding=0, operations=0)
    draws = Draws(plain.weak, plain.operation, plain.applied, plain.level, plain.sign, centre)
    return strong_from_draws(images, draws, cutout=size)
