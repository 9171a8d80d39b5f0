"""The 14 operations of RandAugment on batches, with a level and a sign for every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from daso.errors import DataError, OptionError, nearest
from daso.views import colour, geometry
from daso.views.draws import HIGHEST_LEVEL
from daso.views.geometry import VARIANTS, move

OPERATIONS = (
    "AutoContrast", "Brightness", "Color", "Contrast", "Equalize", "Identity", "Posterize",
    "Rotate", "Sharpness", "ShearX", "ShearY", "Solarize", "TranslateX", "TranslateY",
)  # fmt: skip
"""Names of the pool; :class:`Draws` holds indices into it."""
IDENTITY = OPERATIONS.index("Identity")
Family = Callable[[Tensor, list[int], Tensor], None]
"""Overwrites contiguous images, given the number per operation and the variant per image."""

_FAMILIES: tuple[tuple[Family, tuple[str, ...]], ...] = (
    (geometry.by_row, geometry.BY_ROW),
    (geometry.by_pixel, geometry.BY_PIXEL),
    (colour.blend, colour.BLENDS),
    (colour.bitwise, colour.BITWISE),
    (colour.curves, colour.CURVES),
)
_SORTED = [*(name for _, names in _FAMILIES for name in names), "Identity"]

RANKS = [_SORTED.index(name) for name in OPERATIONS]
"""For each operation of the pool, its place in the order of :func:`operate`."""

FIRST_VARIANTS = [
    sum(names.index(name) * VARIANTS for _, names in _FAMILIES if name in names)
    for name in OPERATIONS
]
"""Variant of each operation at level 0 and sign 1; a level adds 2, and sign -1 adds 1."""

# Elements of a batch, and of a group that a family handles at once: on a CPU temporary arrays of
# this size stay in its cache and need no fresh pages; smaller ones cost more calls than they save.
# Elsewhere the limit only keeps 32-bit indices in range.
_BATCH_ON_CPU = 2**22
_GROUP_ON_CPU = 2**19
_LIMIT = 2**29


def check_images(images: Tensor) -> None:
    """Raise ``DataError`` unless *images* is a uint8 tensor (B, C, H, W) of 1 or 3 channels."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"The views take a torch.uint8 tensor of images, not {found}.")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise DataError(
            "The views take images of shape (B, C, H, W) with 1 or 3 channels and at least one "
            f"pixel, not {tuple(images.shape)}."
        )


def _fitting(images: Tensor, limit_on_cpu: int) -> int:
    limit = limit_on_cpu if images.device.type == "cpu" else _LIMIT
    return max(1, limit // images.shape[1:].numel())


def pieces(images: Tensor) -> Iterator[slice]:
    """Yield slices of the batch that are small enough for temporary arrays to be cheap."""
    size = _fitting(images, _BATCH_ON_CPU)
    for start in range(0, images.shape[0], size):
        yield slice(start, start + size)


def _groups(sizes: list[int], limit: int) -> Iterator[list[int]]:
    """Split the numbers of images of each operation into groups of up to *limit* images."""
    while any(sizes):
        room, group = limit, []
        for size in sizes:
            group.append(min(size, room))
            room -= group[-1]
        yield group
        sizes = [size - taken for size, taken in zip(sizes, group, strict=True)]


def operate(images: Tensor, sizes: list[int], variant: Tensor) -> None:
    """Overwrite contiguous *images*, sorted by the rank of their operation, with its result.

    *sizes* says how many images have each rank, and *variant* (B,) holds the variant of each image.
    """
    limit = _fitting(images, _GROUP_ON_CPU)
    ranks = iter(sizes)
    groups = [
        (family, group)
        for family, names in _FAMILIES
        for group in _groups([next(ranks) for _ in names], limit)
    ]
    lengths = [*(sum(group) for _, group in groups), next(ranks)]
    parts, variants = images.split_with_sizes(lengths), variant.split_with_sizes(lengths)
    for (family, group), part, of_part in zip(groups, parts, variants, strict=False):
        family(part, group, of_part)


def apply(name: str, images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Apply one operation of the pool to every image at its own level and sign.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels; *level* (B,) holds whole numbers in 0..9
    and *sign* (B,) holds −1 or 1. On a CPU each result equals Pillow's for the same image, level
    and sign. Raises ``OptionError`` for an unknown name, levels or signs of another shape, or, if
    they are on the CPU, out of range, and ``DataError`` for invalid images.

    Source: RandAugment, Cubuk et al. 2020 (arXiv 1909.13719), with the pool and ranges of FixMatch,
    Sohn et al. 2020.
    """
    check_images(images)
    if name not in OPERATIONS:
        raise OptionError(f"unknown operation {name!r}.{nearest(name, OPERATIONS)}")
    for title, values, low in (("level", level, 0), ("sign", sign, -1)):
        if values.shape != images.shape[:1]:
            raise OptionError(
                f"{title} must hold one number for each of the {images.shape[0]} images, "
                f"not have shape {tuple(values.shape)}."
            )
        high = HIGHEST_LEVEL if title == "level" else 1
        # Reading values on another device would make the host wait.
        if values.device.type == "cpu" and ((values < low) | (values > high)).any():
            raise OptionError(f"{title} must lie in {low}..{high}.")
    result = images.clone(memory_format=torch.contiguous_format)
    number = OPERATIONS.index(name)
    variant = move(level.long() * 2 + (sign < 0) + FIRST_VARIANTS[number], images.device)
    for part in pieces(images):
        sizes = [0] * len(OPERATIONS)
        sizes[RANKS[number]] = len(result[part])
        operate(result[part], sizes, variant[part])
    return result
