"""The weak view (flip and crop) and the strong view (RandAugment and cutout on top)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from daso.errors import OptionError
from daso.views.draws import Draws, WeakDraws, draw, draw_weak
from daso.views.geometry import move, windows
from daso.views.operations import check_images, operate, pieces
from daso.views.plan import plan_crops, plan_cutout, plan_rounds, send


def weak(
    images: Tensor, generator: torch.Generator, *, flip: bool = True, padding: int = 4
) -> Tensor:
    """Return a weak view of each image: flipped with probability one half, then cropped.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels, on any device; the result has its shape.
    The crop has the size of the image and a random place in the image padded by *padding* reflected
    pixels, fewer than the height and the width. *generator* is on the CPU; the same state gives the
    same view on every device. Raises ``DataError`` for invalid images and ``OptionError`` for an
    invalid padding or generator.

    Source: FixMatch, Sohn et al. 2020.
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
    """Return a strong view of each image: a weak view, then RandAugment, then a cutout.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels, on any device; the result has its shape.
    Every image gets its own *operations* operations, drawn with replacement, each applied with
    *probability* at a level from 1 to *magnitude* − 1 (*magnitude* in 2..10), and then a gray
    square of *cutout* pixels (0: none), cropped at the border. *generator* is on the CPU; the same
    state gives the same view on every device. Raises ``DataError`` for invalid images and
    ``OptionError`` for an option out of range.

    Source: RandAugment, Cubuk et al. 2020 (arXiv 1909.13719), as used in FixMatch, Sohn et al.
    2020; Cutout, DeVries & Taylor 2017.
    """
    check_images(images)
    _check_padding(images, padding)
    count, _, height, width = images.shape
    draws = draw(
        count,
        height,
        width,
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
            f"padding must be at least 0 and less than the images' height and width, {height} x "
            f"{width}, not {padding}"
        )


def _check_draws(images: Tensor, draws: WeakDraws) -> None:
    check_images(images)
    _check_padding(images, draws.padding)
    if (count := draws.flipped.numel()) != images.shape[0]:
        raise OptionError(f"the draws are for {count} images, not for {images.shape[0]}")


def crop(images: Tensor, draws: WeakDraws) -> Tensor:
    """Flip and crop uint8 images (B, C, H, W) by *draws*.

    Raises ``DataError`` for invalid images, and ``OptionError`` if their size or number does not
    fit the draws.
    """
    _check_draws(images, draws)
    result = images.new_empty(images.shape)
    for part in pieces(images):
        _crop_part(images[part], draws, part, result[part])
    return result


@torch.inference_mode()  # makes every call on a tensor cheaper
def _crop_part(images: Tensor, draws: WeakDraws, part: slice, result: Tensor) -> None:
    plain, *numbers = plan_crops(draws, part, images.shape[1:])
    source, top, start = send(numbers, images.device)
    _crop(images, plain, source, top, start, draws.padding, result)


@lru_cache(maxsize=64)
def _row_table(
    channels: int, height: int, width: int, padding: int, device: torch.device
) -> Tensor:
    """Return where the rows of a crop start in the flat image, by top of the crop: (tops, C, H)."""
    places = torch.arange(-padding, height + padding).abs()
    rows = torch.minimum(places, 2 * (height - 1) - places).unfold(0, height, 1)
    return move((torch.arange(channels)[:, None] * height + rows[:, None]) * width, device)


def _crop(
    images: Tensor,
    plain: int,
    source: Tensor,
    top: Tensor,
    start: Tensor,
    padding: int,
    result: Tensor,
) -> None:
    """Write to *result* the crop for each *top* and *start* of :class:`~daso.views.plan.Crops`."""
    count, channels, height, width = images.shape
    sizes = (plain, count - plain)
    chosen = images.index_select(0, source)
    rows, mirrored = chosen.split_with_sizes(sizes), chosen.flip(-1).split_with_sizes(sizes)
    joined = images.new_empty(count, channels, height, 2 * width - 1)
    left = joined[..., :width].split_with_sizes(sizes)
    right = joined[..., width - 1 :].split_with_sizes(sizes)
    left[0].copy_(rows[0])
    right[0].copy_(mirrored[0])
    left[1].copy_(mirrored[1])
    right[1].copy_(rows[1])
    table = _row_table(channels, height, 2 * width - 1, padding, images.device)
    starts = table.index_select(0, top).add_(start[:, None, None])
    windows(joined.view(-1), starts.view(-1), width, result.view(-1, width))


def strong_from_draws(images: Tensor, draws: Draws, *, cutout: int = 16) -> Tensor:
    """Return the strong view of uint8 images (B, C, H, W) by *draws*; see :func:`strong`.

    Raises ``OptionError`` for a negative *cutout*, and as :func:`crop` does.
    """
    _check_draws(images, draws.weak)
    _check_cutout(cutout)
    result = images.new_empty(images.shape)
    for part in pieces(images):
        _strong_part(images[part], draws, part, cutout, result[part])
    return result


@torch.inference_mode()
def _strong_part(images: Tensor, draws: Draws, part: slice, cutout: int, result: Tensor) -> None:
    rounds, place = plan_rounds(draws, part)
    plain, *numbers = plan_crops(draws.weak, part, images.shape[1:], rounds[0].chosen)
    numbers += [place, *plan_cutout(draws.centre[part], cutout)]
    numbers += [array for one in rounds for array in (one.chosen, one.variant)]
    source, top, start, last, left, above, *controls = send(numbers, images.device)
    # Every round has its own results, so that images it does not change are not copied.
    results = images.new_empty(sum(one.chosen.size for one in rounds), *images.shape[1:])
    end = len(images)
    _crop(images, plain, source, top, start, draws.weak.padding, results[:end])
    operate(results[:end], rounds[0].sizes, controls[1])
    for one, chosen, variant in zip(rounds[1:], controls[2::2], controls[3::2], strict=True):
        own = results[end : end + one.chosen.size]
        torch.index_select(results[:end], 0, chosen, out=own)
        operate(own, one.sizes, variant)
        end += one.chosen.size
    torch.index_select(results, 0, last, out=result)
    _hide(result, left, above, cutout)


def cut_out(images: Tensor, centre: Tensor, *, size: int = 16) -> Tensor:
    """Fill a square of each uint8 image (B, C, H, W) with the gray 127, on any device.

    *centre* (B, 2) holds x and y in pixels, on the CPU. The square starts size / 2 before the
    center, or at the border of the image, and includes both its ends, so it is up to size + 1
    pixels wide; 0 leaves the images unchanged. Raises ``DataError`` for invalid images and
    ``OptionError`` for a negative size.

    Source: Cutout, DeVries & Taylor 2017, with the rectangle of FixMatch's code (Pillow's).
    """
    check_images(images)
    _check_cutout(size)
    result = images.clone(memory_format=torch.contiguous_format)
    left, top = send([*plan_cutout(centre, size)], images.device)
    for part in pieces(images):
        _hide(result[part], left[part], top[part], size)
    return result


def _check_cutout(size: int) -> None:
    if size < 0:
        raise OptionError(f"cutout must be 0 or more, not {size}")


@lru_cache(maxsize=64)
def _band_tables(height: int, width: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the rows that a square covers, by its first row, and the columns, by its first one.

    Rows are int64 0 or 1, (H, H); columns uint8 0 or 128, (W + 1, W), after an empty first row.
    """
    row, column = torch.arange(height), torch.arange(width)
    down = (row >= row[:, None]) & (row <= row[:, None] + size)
    across = (column >= column[:, None]) & (column <= column[:, None] + size)
    patterns = torch.cat((torch.zeros(1, width), across * 128)).to(torch.uint8)
    return move(down.long(), device), move(patterns, device)


def _hide(images: Tensor, left: Tensor, top: Tensor, size: int) -> None:
    """Fill the squares of *size* that start at *left* and *top* in contiguous images."""
    if size == 0:
        return
    count, _, height, width = images.shape
    down, patterns = _band_tables(height, width, size, images.device)
    chosen = down.index_select(0, top).mul_((left + 1)[:, None])
    hidden = patterns.index_select(0, chosen.view(-1)).view(count, 1, height, width)
    # Clamped to 127..127 in the square and 0..255 elsewhere, many times as fast as a mask.
    torch.clamp(images, hidden.clamp(max=127), ~hidden, out=images)
