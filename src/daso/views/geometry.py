"""Geometric operations with nearest resampling, exactly as in Pillow's fixed-point arithmetic.

Each operation has few variants (ten levels, two signs), so the source of every pixel is computed
once for a size and cached. Where whole rows move, row windows are copied instead of
single pixels looked up.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from daso.views.draws import HIGHEST_LEVEL

Matrix = tuple[float, float, float, float, float, float]

BY_ROW = ("ShearX", "TranslateX", "TranslateY")
"""Operations that move or shift whole rows."""
BY_PIXEL = ("Rotate", "ShearY")
VARIANTS = 2 * (HIGHEST_LEVEL + 1)
"""Number of pairs of a level and a sign."""


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to *device* without making the host wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # Copies from pageable memory may wait for the device.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def windows(flat: Tensor, starts: Tensor, width: int, out: Tensor) -> None:
    """Copy *width* elements of the 1-d tensor *flat* from each of *starts* to *out*, (B, width)."""
    # Overlapping views let one index_select copy whole rows, many times as fast as a gather.
    view = flat.as_strided((flat.numel() - width + 1, width), (1, 1))
    torch.index_select(view, 0, starts, out=out)


def _fixed(value: float) -> int:
    return math.floor(value * 65536 + 0.5)


def _rotation(degrees: int, height: int, width: int) -> Matrix:
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    across, down = width / 2, height / 2
    horizontal = cosine * -across + sine * -down + across
    vertical = -sine * -across + cosine * -down + down
    return cosine, sine, horizontal, -sine, cosine, vertical


def _matrix(name: str, level: int, sign: int, height: int, width: int) -> Matrix:
    """Return the matrix from a pixel of the result to its source, as in Pillow's AFFINE."""
    if name == "Rotate":
        return _rotation(sign * int(level / 10 * 30), height, width)
    value = sign * (level / 10 * 0.3)
    if name == "ShearX":
        return 1.0, value, 0.0, 0.0, 1.0, 0.0
    if name == "ShearY":
        return 1.0, 0.0, 0.0, value, 1.0, 0.0
    if name == "TranslateX":
        return 1.0, 0.0, float(int(value * width)), 0.0, 1.0, 0.0
    return 1.0, 0.0, 0.0, 0.0, 1.0, float(int(value * height))


def _source(matrix: Matrix, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the source row and column of each pixel, by Pillow's 16-bit fixed point."""
    a, b, c, d, e, f = matrix
    column = _fixed(c + a * 0.5 + b * 0.5) + _fixed(a) * columns + _fixed(b) * rows
    row = _fixed(f + d * 0.5 + e * 0.5) + _fixed(d) * columns + _fixed(e) * rows
    return row >> 16, column >> 16


def _variants(names: tuple[str, ...], height: int, width: int) -> list[Matrix]:
    return [
        _matrix(name, level, sign, height, width)
        for name in names
        for level in range(HIGHEST_LEVEL + 1)
        for sign in (1, -1)
    ]


@lru_cache(maxsize=64)
def _pixel_table(height: int, width: int, device: torch.device) -> Tensor:
    """Return the source of every pixel, (variants, 1, height·width) int32; the last is black."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    table = torch.empty(len(BY_PIXEL) * VARIANTS, 1, height * width, dtype=torch.int32)
    for index, matrix in enumerate(_variants(BY_PIXEL, height, width)):
        row, column = _source(matrix, rows, columns)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        table[index] = torch.where(inside, row * width + column, height * width).flatten()
    return move(table, device)


@lru_cache(maxsize=64)
def _row_table(height: int, width: int, device: torch.device) -> Tensor:
    """Return row starts, int64 (variants, 1, height), in a plane with *width* zeros before each."""
    rows = torch.arange(height)
    table = torch.empty(len(BY_ROW) * VARIANTS, 1, height, dtype=torch.int64)
    for index, matrix in enumerate(_variants(BY_ROW, height, width)):
        row, column = _source(matrix, rows, torch.zeros_like(rows))
        start = row * 2 * width + width + column.clamp(-width, width)
        table[index] = torch.where((row >= 0) & (row < height), start, 2 * width)
    return move(table, device)


def by_pixel(images: Tensor, sizes: list[int], variant: Tensor) -> None:
    """Apply ``BY_PIXEL`` by looking up every pixel."""
    count, channels, height, width = images.shape
    area = height * width
    planes = pad(images.view(count * channels, area), (0, 1))
    base = torch.arange(0, planes.numel(), area + 1, dtype=torch.int32, device=images.device)
    source = _pixel_table(height, width, images.device).index_select(0, variant)
    index = source + base.view(count, channels, 1)
    torch.index_select(planes.view(-1), 0, index.view(-1), out=images.view(-1))


def by_row(images: Tensor, sizes: list[int], variant: Tensor) -> None:
    """Apply ``BY_ROW`` by copying whole rows."""
    count, channels, height, width = images.shape
    rows = images.view(-1, width)
    # Each row is followed by the zeros before the next, and the last one by its own zeros.
    padded = pad(rows, (width, 0, 0, 1))
    plane = 2 * height * width
    base = torch.arange(0, count * channels * plane, plane, device=images.device)
    starts = _row_table(height, width, images.device).index_select(0, variant)
    starts = starts + base.view(count, channels, 1)
    windows(padded.view(-1), starts.view(-1), width, rows)
