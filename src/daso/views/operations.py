"""The pool of 14 operations of RandAugment, each on a batch with a level and a sign for every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from daso.errors import DataError, OptionError, nearest
from daso.views import colour
from daso.views.draws import HIGHEST_LEVEL
from daso.views.geometry import by_pixel, by_row, move

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]

OPERATIONS: tuple[tuple[str, Operation], ...] = (
    ("AutoContrast", colour.autocontrast),
    ("Brightness", colour.brightness),
    ("Color", colour.colour),
    ("Contrast", colour.contrast),
    ("Equalize", colour.equalize),
    ("Identity", colour.identity),
    ("Posterize", colour.posterize),
    ("Rotate", partial(by_pixel, "Rotate")),
    ("Sharpness", colour.sharpness),
    ("ShearX", partial(by_row, "ShearX")),
    ("ShearY", partial(by_pixel, "ShearY")),
    ("Solarize", colour.solarize),
    ("TranslateX", partial(by_row, "TranslateX")),
    ("TranslateY", partial(by_row, "TranslateY")),
)
"""The pool, in the order of the numbers in :class:`Draws`: each operation's name and its function, which
takes uint8 images (B, C, H, W) and int64 levels and signs (B,) on one device and returns new images."""

IDENTITY = [name for name, _ in OPERATIONS].index("Identity")
"""The place in the pool of the operation that changes nothing."""

# Temporary arrays of this many elements stay in a CPU's cache, and off the path where every allocation
# brings fresh pages; elsewhere the limit only keeps 32-bit indices in range.
_PIECE_ON_CPU = 2**21
_PIECE = 2**29


def check_images(images: Tensor) -> None:
    """Raise ``DataError`` unless *images* is a uint8 tensor (B, C, H, W) of 1 or 3 channels."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"The views take a torch.uint8 tensor of images, not {found}.")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise DataError(
            "The views take images of shape (B, C, H, W) with 1 or 3 channels and at least one pixel, "
            f"not {tuple(images.shape)}."
        )


def pieces(images: Tensor) -> Iterator[slice]:
    """Yield slices of the batch that are small enough for temporary arrays to be cheap."""
    limit = _PIECE_ON_CPU if images.device.type == "cpu" else _PIECE
    size = max(1, limit // max(1, images[:1].numel()))
    for start in range(0, images.shape[0], size):
        yield slice(start, start + size)


def apply_in_place(operation: Operation, images: Tensor, level: Tensor, sign: Tensor) -> None:
    """Overwrite contiguous *images* with the result of *operation*, a piece at a time."""
    for part in pieces(images):
        images[part].copy_(operation(images[part], level[part], sign[part]))


def apply(name: str, images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Carry out one operation of the pool on every image, each at its own level and sign, on any device.

    *images* is uint8 (B, C, H, W) with 1 or 3 channels and isn't changed; *level* (B,) holds whole numbers
    in 0..9 and *sign* (B,) holds −1 or 1; both are read where the operation depends on them. On a CPU
    each result equals Pillow's for the same image, level and sign. Raises ``OptionError`` for an unknown
    name, levels or signs of another shape, or, if they are on the CPU, out of range, and ``DataError`` for
    unfit images.

    Source: RandAugment, Cubuk et al. 2020 (arXiv 1909.13719), with the pool and ranges of FixMatch, Sohn et
    al. 2020. Departure: whole batches of tensors here, single Pillow images there.
    """
    check_images(images)
    functions = dict(OPERATIONS)
    if name not in functions:
        raise OptionError(f"Unknown operation {name!r}.{nearest(name, functions)}")
    for title, values, low in (("level", level, 0), ("sign", sign, -1)):
        if values.shape != images.shape[:1]:
            raise OptionError(
                f"{title} must hold one number for each of the {images.shape[0]} images, "
                f"not have shape {tuple(values.shape)}."
            )
        high = HIGHEST_LEVEL if title == "level" else 1
        # Values on another device are not looked at: that would make the host wait.
        if values.device.type == "cpu" and ((values < low) | (values > high)).any():
            raise OptionError(f"{title} must lie in {low}..{high}.")
    result = images.clone(memory_format=torch.contiguous_format)
    level, sign = move(level.long(), images.device), move(sign.long(), images.device)
    apply_in_place(functions[name], result, level, sign)
    return result
