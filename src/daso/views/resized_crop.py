"""Random resized crops, for photographs with objects at many scales."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from daso.views.geometry import move

ATTEMPTS = 10
BITS = 22
"""Fractional bits of a weight, as in Pillow."""
_HALF = BITS // 2


@dataclass(frozen=True)
class ResizedDraws:
    """The draws of a resized crop of B images: flip and part.

    ``flipped`` is bool; ``top``, ``left``, ``height`` and ``width`` are int64, in pixels.
    """

    flipped: Tensor
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_resized(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    flip: bool = True,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> ResizedDraws:
    """Draw the flips (probability one half) and the parts of *count* images.

    The images have *height* × *width* pixels. The part's share of the area is uniform in *area*,
    its ratio of width to height log-uniform in *ratio*, and its place uniform. The first of ten
    draws that fits into the image is taken, else the largest central part within *ratio*.
    *generator* is on the CPU: the same state gives the same views on every device.

    Source: Szegedy et al. 2015 (arXiv 1409.4842), with the usual ranges for ImageNet.
    """
    flipped = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    share, shape = torch.rand((2, ATTEMPTS, count), generator=generator, dtype=torch.float64)
    place = torch.rand((2, count), generator=generator, dtype=torch.float64)
    pixels = height * width * (area[0] + (area[1] - area[0]) * share)
    aspect = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * shape)
    tall = torch.sqrt(pixels / aspect).round().long()
    wide = torch.sqrt(pixels * aspect).round().long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(dim=0, keepdim=True)
    centre = _central_part(height, width, ratio)
    tall = torch.where(fits.any(dim=0), tall.gather(0, first)[0], centre[0])
    wide = torch.where(fits.any(dim=0), wide.gather(0, first)[0], centre[1])
    free = torch.stack((height - tall, width - wide))
    top, left = torch.where(fits.any(dim=0), (place * (free + 1)).long(), free // 2)
    return ResizedDraws(flipped, top, left, tall, wide)


def _central_part(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    if width / height < ratio[0]:
        return max(1, min(height, round(width / ratio[0]))), width
    if width / height > ratio[1]:
        return height, max(1, min(width, round(height * ratio[1])))
    return height, width


def resize_parts(images: Tensor, draws: ResizedDraws, *, height: int, width: int) -> Tensor:
    """Return the drawn part of each uint8 image (B, C, H, W), resized to *height* × *width*.

    *images* have 1 or 3 channels, on any device. The resampling equals Pillow's antialiased
    ``BILINEAR`` on the part, cut out first, along rows and then along columns. (Where Pillow
    resizes both at once, recent versions take the cheaper of the two orders, which moves some
    pixels by one level.) Each direction is a product with one matrix per image, so a batch of parts
    of all sizes takes two batched matrix products. They are of whole numbers that float32 holds, so
    the result is the same on every device; beyond reductions of 16 times, except for ties.
    """
    count, channels = images.shape[:2]
    numbers = torch.stack((draws.flipped.long(), draws.top, draws.left, draws.height, draws.width))
    flipped, top, left, tall, wide = move(numbers, images.device).unbind()
    result = images.new_empty(count, channels, height, width)
    for part in _pieces(images):
        across = _weights(left[part], wide[part], images.shape[3], width, flipped[part])
        down = _weights(top[part], tall[part], images.shape[2], height)
        lines = _resampled(images[part].flatten(1, 2), across)
        lines = lines.view(-1, channels, images.shape[2], width).transpose(2, 3)
        lines = _resampled(lines.flatten(1, 2), down).view(-1, channels, width, height)
        result[part] = lines.transpose(2, 3)
    return result


def _pieces(images: Tensor) -> Iterator[slice]:
    # Weights and sums take several times the images' memory.
    limit = 2**21 if images.device.type == "cpu" else 2**25
    size = max(1, limit // max(1, images[:1].numel()))
    for start in range(0, len(images), size):
        yield slice(start, start + size)


def _weights(
    start: Tensor, length: Tensor, before: int, after: int, flipped: Tensor | None = None
) -> Tensor:
    """Return the weights (B, after, before) that resize a stretch of *before* to *after* pixels.

    Whole numbers keep the result independent of the device: a pixel has 2 * *after* parts of
    distance, and weights are in units of 2^-22.
    """
    length = length[:, None, None]
    target = torch.arange(after, device=start.device).expand(len(start), after)
    if flipped is not None:
        target = torch.where(flipped[:, None] != 0, after - 1 - target, target)
    pixel = (torch.arange(before, device=start.device) - start[:, None])[:, None]
    distance = (2 * pixel + 1) * after - (2 * target[:, :, None] + 1) * length
    share = (2 * length.clamp(min=after) - distance.abs_()).clamp_(min=0)
    share *= (pixel >= 0) & (pixel < length)
    total = share.sum(dim=2, keepdim=True)
    return share.mul_(2 << BITS).add_(total).div_(2 * total, rounding_mode="floor").int()


def _resampled(lines: Tensor, weights: Tensor) -> Tensor:
    """Multiply uint8 lines (B, N, before) by weights (B, after, before) and round to uint8."""
    # Half of a weight's bits at a time, so that sums of products are exact in float32.
    halves = torch.cat((weights >> _HALF, weights & (2**_HALF - 1)), dim=1)
    coarse, fine = (lines.float() @ halves.float().mT).int().chunk(2, dim=2)
    total = coarse.mul_(1 << _HALF).add_(fine).add_(1 << (BITS - 1))
    return torch.bitwise_right_shift(total, BITS).clamp_(max=255).to(torch.uint8)
