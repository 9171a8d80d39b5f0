"""Color operations that reproduce Pillow's arithmetic on whole groups of images.

Operations of the same arithmetic are a family and share each pass over their images: for few
images, calling a kernel costs more than its computation. A family takes contiguous images
(B, C, H, W) that are sorted by operation, the number of images of each operation, and the variant
of each image.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from daso.views.draws import HIGHEST_LEVEL
from daso.views.geometry import VARIANTS, move

BLENDS = ("Brightness", "Sharpness", "Contrast", "Color")
"""Operations that blend an image with a degraded one."""
BITWISE = ("Posterize", "Solarize")
"""Operations on the bits of each value."""
CURVES = ("Equalize", "AutoContrast")
"""Operations that map the values of a channel by its histogram."""

_LEVELS = [level for level in range(HIGHEST_LEVEL + 1) for sign in (1, -1)]
_FACTORS = [level / 10 * 0.9 + 0.05 for level in _LEVELS]
_KEPT_BITS = [0xFF & ~(2 ** (8 - (int(level / 10 * 4) + 4)) - 1) for level in _LEVELS]
_BELOW_THRESHOLD = [256 - int(level / 10 * 256) - 1 for level in _LEVELS]
_ALL = [255] * VARIANTS
_PIXELS = (None, None, None)


@lru_cache(maxsize=64)
def _constants(name: str, device: torch.device) -> Tensor:
    values = {
        "factor": torch.tensor(_FACTORS * len(BLENDS), dtype=torch.float32)[:, *_PIXELS],
        "kept bits": torch.tensor(_KEPT_BITS + _ALL, dtype=torch.uint8)[:, *_PIXELS],
        "below threshold": torch.tensor(_ALL + _BELOW_THRESHOLD, dtype=torch.uint8)[:, *_PIXELS],
        "one": torch.ones(1, dtype=torch.int32),
        "values": torch.arange(256, dtype=_precise(device)),
    }[name]
    return move(values, device)


def _constant(name: str, variant: Tensor) -> Tensor:
    return _constants(name, variant.device).index_select(0, variant)


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which Apple's devices lack


def _grey(images: Tensor) -> Tensor:
    """Return the gray values, whole numbers: (B, 1, H, W) from float32 (B, C, H, W)."""
    if images.shape[1] == 1:
        return images.clone()
    red, green, blue = images.split_with_sizes((1, 1, 1), dim=1)
    # Each weight is in 65536ths and every sum stays below 2 ** 24, so float32 is exact here.
    total = (red * 19595.0).add_(green, alpha=38470.0).add_(blue, alpha=7471.0).add_(32768.0)
    return total.mul_(1 / 65536).floor_()


def _smooth(images: Tensor) -> Tensor:
    """Smooth float32 *images* by a 3 × 3 filter of ones with a 5 in the center; keep the border."""
    result = images.clone()
    height, width = images.shape[2:]
    if min(height, width) < 3 or not images.numel():
        return result
    # Summed over one long row, where torch is fastest; only the border is wrong there.
    flat = images.view(-1)
    rows = (flat[: -2 * width] + flat[width:-width]).add_(flat[2 * width :])
    total = (rows[:-2] + rows[1:-1]).add_(rows[2:]).add_(flat[width + 1 : -width - 1], alpha=4)
    # Thirteenths are never halfway between whole numbers, so float32 rounds exactly.
    total.mul_(1 / 13).add_(0.5).floor_()
    inner = total.as_strided((*images.shape[:2], height - 2, width - 2), images.stride())
    result[:, :, 1:-1, 1:-1] = inner
    return result


def blend(images: Tensor, sizes: list[int], variant: Tensor) -> None:
    """Apply ``BLENDS``: fade to black, a smoothed image, the mean gray, or the gray image."""
    values = images.float()
    _, sharp, flat, colored = values.split_with_sizes(sizes)
    greys = _grey(values[sizes[0] + sizes[1] :])
    flat_grey, grey = greys.split_with_sizes(sizes[2:])
    total = flat_grey.sum(dim=(1, 2, 3), keepdim=True, dtype=_precise(images.device))
    mean = total.div_(images.shape[2] * images.shape[3]).add_(0.5).floor_().float()
    # A pixel v becomes w + factor · (v - w), in Pillow's order; black is 0.
    worse = ((sharp, _smooth(sharp)), (flat, mean), (colored, grey))
    for part, target in worse:
        part.sub_(target)
    values.mul_(_constant("factor", variant))
    for part, target in worse:
        part.add_(target)
    # Truncated through int16: torch converts floats to uint8 one element at a time on a CPU.
    images.copy_(values.to(torch.int16))


def bitwise(images: Tensor, sizes: list[int], variant: Tensor) -> None:
    """Apply ``BITWISE``: keep the 4 to 7 highest bits, or invert values from a threshold on."""
    below = _constant("below threshold", variant)
    # uint8 arithmetic: torch compares one element at a time on a CPU.
    inverted = torch.maximum(images, below).sub_(below).clamp_(max=1).mul_(255)
    images.bitwise_and_(_constant("kept bits", variant)).bitwise_xor_(inverted)


def curves(images: Tensor, sizes: list[int], variant: Tensor) -> None:
    """Apply ``CURVES``: flatten each channel's histogram, or stretch it to the full range."""
    count, channels, height, width = images.shape
    device, precise = images.device, _precise(images.device)
    planes = images.view(count * channels, height * width)
    base = torch.arange(0, 256 * planes.shape[0], 256, dtype=torch.int32, device=device)
    keys = (planes.to(torch.int32) + base[:, None]).view(-1)
    highest = planes.amax(dim=1, keepdim=True)
    parts = [size * channels for size in sizes]
    # The first part: equalize.
    histogram = torch.zeros(parts[0], 256, dtype=torch.int32, device=device)
    own = keys[: parts[0] * planes.shape[1]]
    # Not bincount, which makes the host wait for a CUDA device.
    histogram.view(-1).scatter_add_(0, own.long(), _constants("one", device).expand_as(own))
    last = histogram.gather(1, highest[: parts[0]].long())
    step = (planes.shape[1] - last).div_(255, rounding_mode="floor")
    # Pixel counts are too small for a quotient to be rounded up to the next whole number.
    before = histogram.cumsum(dim=1, dtype=torch.int32).sub_(histogram)
    table = before.add_(step // 2).to(precise).div_(step).clamp_(max=255)
    flattening = torch.where(step == 0, _constants("values", device), table)
    # The second part: autocontrast.
    high = highest[parts[0] :].to(precise)
    low = planes[parts[0] :].amin(dim=1, keepdim=True).to(precise)
    flat = low == high
    # Rounded as in Pillow; torch would turn 255 / tensor into a product.
    scale = (torch.full_like(low, 255.0) / (high - low)).masked_fill_(flat, 1.0)
    offset = (low * scale).masked_fill_(flat, 0.0)
    stretching = (_constants("values", device) * scale).sub_(offset).clamp_(0, 255)
    tables = torch.cat((flattening, stretching)).to(torch.int16).to(torch.uint8)
    torch.index_select(tables.view(-1), 0, keys, out=images.view(-1))
