"""The weak view (flip and crop) and the strong view (RandAugment and cutout on top of a weak one)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from daso.errors import OptionError
from daso.views.draws import POOL_SIZE, Draws, WeakDraws, draw, draw_weak
from daso.views.geometry import move, windows
from daso.views.operations import IDENTITY, OPERATIONS, apply_in_place, check_images, pieces

_GREY = 127


def weak(images: Tensor, generator: torch.Generator, *, flip: bool = True, padding: int = 4) -> Tensor:
    """Return a weak view of each image: flipped left to right with probability one half, then cropped.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels, on any device, and isn't changed; the result has
    its shape. The crop has the size of the image and a random place in the image padded by *padding*
    reflected pixels, fewer than the height and the width. *generator* is on the CPU; the same state gives
    the same view on every device. Raises ``DataError`` for unfit images and ``OptionError`` for an unfit
    padding or generator.

    Source: FixMatch, Sohn et al. 2020. Departure: none in what is drawn; the images stay uint8 tensors.
    """
    check_images(images)
    _check_padding(images, padding)
    draws = draw_weak(images.shape[0], generator, flip=flip, padding=padding)
    return crop(images, draws)


def strong(
    images: Tensor,
    generator: torch.Generator,
    *,
    flip: bool = True,
    padding: int = 4,
    operations: int = 2,
    magnitude: int = 10,
    probability: float = 0.5,
    cutout: int = 16,
) -> Tensor:
    """Return a strong view of each image: a weak view of its own, then RandAugment, then a cutout.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels, on any device, and isn't changed; the result has
    its shape. Every image gets its own *operations* operations, drawn with replacement, each carried out
    with *probability* at a level from 1 to *magnitude* − 1 (*magnitude* in 2..10), and then always a grey
    square of *cutout* pixels or the part of it within the image (0 for none). *generator* is on the CPU;
    the same state gives the same view on every device. Raises ``DataError`` for unfit images and
    ``OptionError`` for an option out of range.

    Source: RandAugment, Cubuk et al. 2020 (arXiv 1909.13719), as used in FixMatch, Sohn et al. 2020;
    Cutout, DeVries & Taylor 2017. Departure: whole batches of tensors, not single Pillow images; levels and
    operations are still drawn for each image by itself.
    """
    check_images(images)
    _check_padding(images, padding)
    draws = draw(
        images.shape[0],
        images.shape[2],
        images.shape[3],
        generator,
        flip=flip,
        padding=padding,
        operations=operations,
        magnitude=magnitude,
        probability=probability,
    )
    return strong_from_draws(images, draws, cutout=cutout)


def _check_padding(images: Tensor, padding: int) -> None:
    height, width = images.shape[2:]
    if not 0 <= padding < min(height, width):
        raise OptionError(
            f"padding must be at least 0 and less than the height and width of the images, which are "
            f"{height} x {width}; it is {padding}: reflection never repeats the border pixel."
        )


@lru_cache(maxsize=64)
def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """Return the place in 0..size − 1 of each of the size + 2 · padding reflect-padded places."""
    places = torch.arange(-padding, size + padding).abs()
    return move(torch.minimum(places, 2 * (size - 1) - places), device)


def _inverse(order: Tensor) -> Tensor:
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))


def crop(images: Tensor, draws: WeakDraws, *, order: Tensor | None = None) -> Tensor:
    """Flip and crop uint8 images (B, C, H, W) by *draws*; *order*, on the CPU, permutes the results.

    Raises ``DataError`` for unfit images, and ``OptionError`` if the padding of *draws* does not fit them or
    they are not as many as the draws.
    """
    check_images(images)
    _check_padding(images, draws.padding)
    if draws.flipped.numel() != images.shape[0]:
        raise OptionError(f"The draws are for {draws.flipped.numel()} images, not for {images.shape[0]}.")
    order = torch.arange(images.shape[0]) if order is None else order
    result = images.new_empty(images.shape)
    for part in pieces(images):
        _crop_part(images, draws, order[part], result[part])
    return result


def _crop_part(images: Tensor, draws: WeakDraws, chosen: Tensor, result: Tensor) -> None:
    """Write the crops of the *chosen* images, by their places on the CPU, to *result*."""
    count, channels, height, width = result.shape
    device, padding = images.device, draws.padding
    flipped = draws.flipped[chosen]
    # The flipped images go behind the others, so that flipping is one copy of a contiguous part.
    behind = flipped.int().argsort(stable=True)
    plain = count - int(flipped.sum())
    where = torch.stack((chosen[behind], _inverse(behind), draws.top[chosen], draws.left[chosen]))
    source, place, top, left = move(where, device).unbind()
    padded = images.new_empty(count, channels, height, width + 2 * padding)
    inner = padded[..., padding : padding + width]
    inner[:plain] = images.index_select(0, source[:plain])
    inner[plain:] = images.index_select(0, source[plain:]).flip(-1)
    if padding:
        padded[..., :padding] = inner[..., 1 : padding + 1].flip(-1)
        padded[..., padding + width :] = inner[..., width - 1 - padding : width - 1].flip(-1)
    row = _reflected(height, padding, device)[top[:, None] + torch.arange(height, device=device)]
    plane = place[:, None] * channels + torch.arange(channels, device=device)
    starts = (plane[:, :, None] * height + row[:, None]) * padded.shape[3] + left[:, None, None]
    windows(padded.view(-1), starts.view(-1), width, out=result.view(-1, width))


def strong_from_draws(images: Tensor, draws: Draws, *, cutout: int = 16) -> Tensor:
    """Return the strong view of uint8 images (B, C, H, W) that *draws* describes, as :func:`strong` does.

    Raises ``OptionError`` for a negative *cutout*, and as :func:`crop` does.
    """
    chosen = torch.where(draws.applied, draws.operation, IDENTITY)
    steps = chosen.shape[1]
    # Sorted by operation, each group is one contiguous part of the batch: no scattering back.
    orders = [chosen[:, step].argsort(stable=True) for step in range(steps)]
    orders.append(torch.arange(images.shape[0]))
    current = crop(images, draws.weak, order=orders[0])
    # Two buffers take turns, because fresh memory costs more than what is written to it.
    spare = torch.empty_like(current)
    for step, order in enumerate(orders[:-1]):
        controls = torch.stack((draws.level[order, step], draws.sign[order, step]))
        level, sign = move(controls, images.device).unbind()
        start = 0
        for place, size in enumerate(torch.bincount(chosen[:, step], minlength=POOL_SIZE).tolist()):
            part = slice(start, start + size)
            if size and place != IDENTITY:
                apply_in_place(OPERATIONS[place][1], current[part], level[part], sign[part])
            start += size
        following = move(_inverse(order)[orders[step + 1]], images.device)
        torch.index_select(current, 0, following, out=spare)
        current, spare = spare, current
    return _cut_out_in_place(current, draws.centre, cutout)


def cut_out(images: Tensor, centre: Tensor, *, size: int = 16) -> Tensor:
    """Fill a square of each uint8 image (B, C, H, W) with the grey 127, on any device.

    *centre* (B, 2) holds x and y in pixels, on the CPU. The square starts size / 2 before the centre, or at
    the border of the image, and both its ends are included, so it is up to size + 1 pixels wide; 0 leaves
    the images as they are. Raises ``DataError`` for unfit images and ``OptionError`` for a negative size.

    Source: Cutout, DeVries & Taylor 2017, with the rectangle that the code of FixMatch draws with Pillow.
    """
    check_images(images)
    return _cut_out_in_place(images.clone(memory_format=torch.contiguous_format), centre, size)


def _cut_out_in_place(images: Tensor, centre: Tensor, size: int) -> Tensor:
    if size < 0:
        raise OptionError(f"cutout must be 0 or more, not {size}.")
    if size == 0:
        return images
    height, width = images.shape[2:]
    first = (centre.double() - size / 2).clamp(min=0).long()
    last = torch.minimum(first + size, torch.tensor((width, height)))
    left, top, right, bottom = move(torch.cat((first, last), dim=1), images.device)[:, :, None].unbind(1)
    column = torch.arange(width, device=images.device)
    row = torch.arange(height, device=images.device)
    across = ((column >= left) & (column <= right)).to(torch.uint8)[:, None, None, :]
    down = ((row >= top) & (row <= bottom)).to(torch.uint8)[:, None, :, None].mul_(255)
    for part in pieces(images):
        # In uint8 arithmetic, which is several times as fast as a boolean mask on a CPU.
        images[part].bitwise_xor_((images[part] ^ _GREY).bitwise_and_(down[part] * across[part]))
    return images
