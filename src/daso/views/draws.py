"""Random draws of the views: small CPU tensors, so one seed gives one view on every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    AnyDraws = TypeVar("AnyDraws", bound=DataclassInstance)

POOL_SIZE = 14
"""Number of operations in the RandAugment pool of FixMatch."""
HIGHEST_LEVEL = 9
"""Highest level of an operation; levels are drawn from 1."""


@dataclass(frozen=True)
class WeakDraws:
    """The draws of a weak view of B images.

    ``flipped`` is bool; ``top`` and ``left`` are int64 in 0..2·padding, offsets into the image
    padded by ``padding`` pixels on every side.
    """

    flipped: Tensor
    top: Tensor
    left: Tensor
    padding: int


@dataclass(frozen=True)
class Draws:
    """The draws of a strong view of B images, with n operations for each.

    ``operation`` (B, n) holds int64 indices into ``OPERATIONS``, ``applied`` (B, n) says which of
    them are applied, ``level`` (B, n) is int64 from 1 to magnitude − 1, ``sign`` (B, n) is −1 or 1,
    and ``centre`` (B, 2) holds the float64 x and y of the cutout's center in pixels.
    """

    weak: WeakDraws
    operation: Tensor
    applied: Tensor
    level: Tensor
    sign: Tensor
    centre: Tensor


def join_draws(parts: Sequence[AnyDraws]) -> AnyDraws:
    """Concatenate the draws of batches, at least one, with equal padding and operations.

    The view of an image does not depend on the rest of its batch, and one large batch is faster
    than several small ones.
    """
    names = [field.name for field in fields(parts[0])]
    joined = {name: _joined([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **joined)


def _joined(values: list[Any]) -> Any:
    if not isinstance(values[0], Tensor | int):
        return join_draws(values)
    return torch.cat(values) if isinstance(values[0], Tensor) else values[0]


def draw_weak(
    count: int, generator: torch.Generator, *, flip: bool = True, padding: int = 4
) -> WeakDraws:
    """Draw the flips (probability one half) and the crop offsets of *count* weak views.

    *generator* is on the CPU: the same state gives the same views on every device.
    """
    flipped = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).unbind()
    return WeakDraws(flipped, top, left, padding)


def draw(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    flip: bool = True,
    padding: int = 4,
    operations: int = 2,
    magnitude: int = 10,
    probability: float = 0.5,
) -> Draws:
    """Draw *count* strong views of images of *height* × *width* pixels.

    The operations are uniform over the pool, with replacement; each is applied with *probability*,
    at a level uniform over 1..magnitude − 1 (*magnitude* in 2..10). The cutout's center is uniform
    over the image. All draws are independent. *generator* is on the CPU, as for :func:`draw_weak`.
    """
    weak = draw_weak(count, generator, flip=flip, padding=padding)
    shape = (count, operations)
    operation = torch.randint(0, POOL_SIZE, shape, generator=generator)
    applied = torch.rand(shape, generator=generator) < probability
    level = torch.randint(1, magnitude, shape, generator=generator)
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    centre = torch.rand((count, 2), generator=generator, dtype=torch.float64)
    centre *= torch.tensor((width, height), dtype=torch.float64)
    return Draws(weak, operation, applied, level, sign, centre)
