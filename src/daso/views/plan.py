"""Plan the crops and operations of a batch on the host, from its draws.

The plan is in numpy, whose calls on small arrays cost a third of torch's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from daso.views.draws import Draws, WeakDraws
from daso.views.geometry import move
from daso.views.operations import FIRST_VARIANTS, IDENTITY, RANKS

Numbers = npt.NDArray[np.int64]

_RANKS = np.array(RANKS, dtype=np.uint8)  # numpy sorts small types faster
_FIRST_VARIANTS = np.array(FIRST_VARIANTS)


class Crops(NamedTuple):
    """Crops as windows over rows, each joined to its mirror image with a shared pixel.

    Crossing the joint is a reflection, so no border has to be padded. ``source`` permutes the
    images; the first ``plain`` ones have their rows first, the others their mirrored rows. ``top``
    is a crop's first row in the padded image, and ``start`` its start among all the joined rows if
    that row were 0.
    """

    plain: int
    source: Numbers
    top: Numbers
    start: Numbers


class Round(NamedTuple):
    """One operation on each of the ``chosen`` images, which are sorted by its rank.

    ``sizes`` is the number of images of each rank, and ``variant`` the variant of each image.
    ``chosen`` are indices into the results of the rounds so far, in the first round into the crops.
    """

    chosen: Numbers
    sizes: list[int]
    variant: Numbers


def send(arrays: list[Numbers], device: torch.device) -> tuple[Tensor, ...]:
    """Copy arrays to *device* in one transfer."""
    together = move(torch.from_numpy(np.concatenate(arrays)), device)
    return together.split_with_sizes([array.size for array in arrays])


def plan_crops(
    draws: WeakDraws, part: slice, shape: torch.Size, order: Numbers | None = None
) -> Crops:
    """Return the crops of a *part* of a batch of *shape* (C, H, W), permuted by *order*."""
    channels, height, width = shape
    flipped, top, left = (values.numpy()[part] for values in (draws.flipped, draws.top, draws.left))
    # A window may reach over the joint, but not to before the first row.
    before = left < draws.padding
    mirrored = flipped != before
    source = mirrored.argsort(kind="stable")
    start = source.argsort() * (channels * height * (2 * width - 1)) + left - draws.padding
    start[before] += width - 1
    if order is not None:
        top, start = top[order], start[order]
    return Crops(source.size - int(mirrored.sum()), source, top, start)


def plan_rounds(draws: Draws, part: slice) -> tuple[list[Round], Numbers]:
    """Return the rounds of operations for a *part* of a batch, and the index of each last result.

    There is at least one round. The first has all images, so that they can be cropped in its order.
    """
    operation, level = draws.operation.numpy()[part], draws.level.numpy()[part]
    variants = level * 2 + (draws.sign.numpy()[part] < 0) + _FIRST_VARIANTS[operation]
    changes = draws.applied.numpy()[part] & (operation != IDENTITY)
    # The first change of an image is in the first round, so that later rounds have few images.
    turn = changes.cumsum(axis=1)
    place, stop = np.empty(len(operation), int), 0
    rounds: list[Round] = []
    for step in range(max(1, operation.shape[1])):
        image, column = np.nonzero(changes & (turn == step + 1))
        rank = _RANKS[operation[image, column]]
        sizes = np.bincount(rank, minlength=len(RANKS)).tolist()
        order = rank.argsort(kind="stable")
        image, variant = image[order], variants[image, column][order]
        chosen = place[image]
        if step == 0:
            others = np.nonzero(~changes.any(axis=1))[0]
            image = chosen = np.concatenate((image, others))
            variant = np.concatenate((variant, np.zeros_like(others)))
            sizes[-1] = others.size
        place[image] = np.arange(stop, stop + image.size)
        stop += image.size
        rounds.append(Round(chosen, sizes, variant))
    return rounds, place


def plan_cutout(centre: Tensor, size: int) -> tuple[Numbers, Numbers]:
    """Return the first column and the first row of the square of *size* at each *centre*."""
    left, top = (centre.double().numpy() - size / 2).clip(min=0).astype(np.int64).T
    return left, top
