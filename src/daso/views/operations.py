"""The 14 operations of RandAugment on batches, with a level and a sign for every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from daso.views import colour, geometry
from daso.views.geometry import VARIANTS

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
