"""Colour operations that reproduce Pillow's arithmetic, whole groups of images at a time."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from daso.views.draws import HIGHEST_LEVEL
from daso.views.geometry import move

_LEVELS = range(HIGHEST_LEVEL + 1)
_FACTORS = [level / 10 * 0.9 + 0.05 for level in _LEVELS]
_KEPT_BITS = [0xFF & ~(2 ** (8 - (int(level / 10 * 4) + 4)) - 1) for level in _LEVELS]
_BELOW_THRESHOLD = [256 - int(level / 10 * 256) - 1 for level in _LEVELS]


@lru_cache(maxsize=64)
def _constants(name: str, device: torch.device) -> Tensor:
    values = {
        "factor": torch.tensor(_FACTORS, dtype=torch.float32),
        "kept bits": torch.tensor(_KEPT_BITS, dtype=torch.uint8),
        "below threshold": torch.tensor(_BELOW_THRESHOLD, dtype=torch.uint8),
    }[name]
    return move(values, device)


def _constant(name: str, level: Tensor) -> Tensor:
    return _constants(name, level.device).index_select(0, level).view(-1, 1, 1, 1)


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which Apple's devices lack


def _truncate(values: Tensor) -> Tensor:
    # By way of int16 because torch turns float32 into uint8 one element at a time on a CPU.
    return values.to(torch.int16).to(torch.uint8)


def _blend(degenerate: Tensor, images: Tensor, level: Tensor) -> Tensor:
    """Go from *degenerate* towards the float32 *images*, which are overwritten, by the factor of *level*."""
    factor = _constant("factor", level)
    return _truncate(images.sub_(degenerate).mul_(factor).add_(degenerate))


def _grey(images: Tensor) -> Tensor:
    """Return the grey value of each pixel, a whole float32: (B, 1, H, W) from float32 (B, C, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    # Each weight is in 65536ths and every sum stays below 2 ** 24, so float32 is exact here.
    total = (red * 19595.0).add_(green * 38470.0).add_(blue * 7471.0).add_(32768.0)
    return total.mul_(1 / 65536).floor_()


def brightness(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Darken towards black."""
    return _truncate(images.float().mul_(_constant("factor", level)))


def colour(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Fade towards grey; grey images stay as they are."""
    if images.shape[1] == 1:
        return images.clone()
    values = images.float()
    return _blend(_grey(values), values, level)


def contrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Fade towards the rounded mean of the grey values."""
    values = images.float()
    # A row's sum is exact in float32; that of a large image need not be.
    total = _grey(values).sum(dim=(1, 3)).sum(dim=1, dtype=_precise(images.device))
    mean = (total / (images.shape[2] * images.shape[3]) + 0.5).floor()
    return _blend(mean.float().view(-1, 1, 1, 1), values, level)


def sharpness(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Fade towards the image smoothed by a 3 × 3 filter of weights 1 and a centre of 5; the rim stays."""
    if min(images.shape[2:]) < 3:
        return images.clone()
    width = images.shape[3]
    values = images.to(torch.int16, memory_format=torch.contiguous_format)
    # Summed over one long row, where torch is quickest; what is wrong there is the rim, and that stays.
    flat = values.view(-1)
    rows = (flat[: -2 * width] + flat[width:-width]).add_(flat[2 * width :])
    total = torch.zeros_like(values)
    inner = total.view(-1)[width + 1 : -width - 1]
    torch.add(rows[:-2], rows[1:-1], out=inner)
    inner.add_(rows[2:]).add_(flat[width + 1 : -width - 1], alpha=4)
    # Thirteenths are never halfway between whole numbers, so float32 rounds as exact arithmetic would.
    smooth = total.float().mul_(1 / 13).add_(0.5).floor_()
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = _blend(smooth, values.float(), level)[:, :, 1:-1, 1:-1]
    return result


def posterize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Keep the 4 to 7 highest bits."""
    return images & _constant("kept bits", level)


def solarize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Invert the values from a threshold on."""
    below = _constant("below threshold", level)
    # uint8 arithmetic and not a comparison, which torch does one element at a time on a CPU.
    inverted = torch.maximum(images, below).sub_(below).clamp_(max=1).mul_(255)
    return inverted.bitwise_xor_(images)


def _planes(images: Tensor) -> Tensor:
    return images.reshape(images.shape[0] * images.shape[1], -1)


def _keys(planes: Tensor) -> Tensor:
    """Return plane · 256 + value for every pixel, int32."""
    base = torch.arange(planes.shape[0], dtype=torch.int32, device=planes.device) * 256
    return planes.to(torch.int32).add_(base[:, None])


def autocontrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Stretch each channel to the full range."""
    planes = _planes(images)
    precise = _precise(images.device)
    low, high = planes.amin(dim=1).to(precise), planes.amax(dim=1).to(precise)
    flat = low == high
    # Rounded as in Pillow; the division is of two tensors, since torch turns 255 / tensor into a product.
    scale = torch.where(flat, 1.0, torch.full_like(low, 255.0) / (high - low))
    offset = torch.where(flat, 0.0, -low * scale)
    values = torch.arange(256, dtype=precise, device=images.device)
    table = (values * scale[:, None]).add_(offset[:, None]).clamp_(0, 255).to(torch.int16).to(torch.uint8)
    return table.view(-1).index_select(0, _keys(planes).view(-1)).view(images.shape)


def equalize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Flatten the histogram of each channel."""
    planes = _planes(images)
    keys = _keys(planes).view(-1)
    histogram = torch.zeros(planes.shape[0] * 256, dtype=torch.int32, device=images.device)
    # Not bincount, which makes the host wait for a CUDA device.
    histogram.scatter_add_(0, keys.long(), torch.ones_like(histogram[:1]).expand(keys.numel()))
    histogram = histogram.view(-1, 256)
    last = histogram.gather(1, planes.amax(dim=1, keepdim=True).long())
    step = (planes.shape[1] - last) // 255
    before = histogram.cumsum(dim=1, dtype=torch.int32).sub_(histogram)
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(max=255)
    unchanged = torch.arange(256, dtype=torch.int32, device=images.device)
    table = torch.where(step == 0, unchanged, table).to(torch.uint8)
    return table.view(-1).index_select(0, keys).view(images.shape)


def identity(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Change nothing."""
    return images.clone()
