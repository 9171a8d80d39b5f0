"""The weak view (flip and crop) and the strong view (RandAugment and cutout on top)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from daso.views.draws import Draws, WeakDraws
from daso.views.geometry import move, windows
from daso.views.operations import operate, pieces
from daso.views.plan import plan_crops, plan_cutout, plan_rounds, send


def crop(images: Tensor, draws: WeakDraws) -> Tensor:
    """Return the weak view of each image: flipped, then cropped, by *draws*.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels, on any device; the result has its shape.
    The crop has the size of the image and a place in the image padded by reflected pixels, fewer
    than the height and the width. The same draws give the same view on every device.

    Source: FixMatch, Sohn et al. 2020.
    """
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
    """Return the strong view of each image: the weak one, then RandAugment, then a cutout.

    The images are those of :func:`crop`. The cutout is a gray square of *cutout* pixels (0: none),
    cropped at the border: it starts cutout / 2 before its center and includes both its ends.

    Source: RandAugment, Cubuk et al. 2020 (arXiv 1909.13719), as used in FixMatch, Sohn et al.
    2020; Cutout, DeVries & Taylor 2017, with the rectangle of FixMatch's code (Pillow's).
    """
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
