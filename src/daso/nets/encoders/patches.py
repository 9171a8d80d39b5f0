"""Features of image patches, from a dictionary that is learned without labels in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FILTERS = 200
"""Filters of all sizes of patches together."""
SIZES = 6, 10
"""Sides of the patches, in pixels; small images have one size, half of their shorter side."""
GRID, QUARTERS = 3, 2
"""Cells on a side of the grids for averages and for peaks."""
VALUES = GRID**2 + QUARTERS**2 + 1
"""Numbers that each response of an image becomes."""
THRESHOLD = 0.25
CONTRAST = 10.0
"""Added to a patch's variance, in squared pixel values, so that flat patches stay small."""
WHITENING = 0.1
LARGEST, SHRUNK = 64, 32
"""Larger images are shrunk, and to what; in pixels of the longer side."""
IMAGES, EACH = 5_000, 12
"""Images to learn from, at most, and patches that are drawn from each."""
ROUNDS = 10


class Geometry(NamedTuple):
    """How patches lie in an image.

    Attributes:
        height, width: to which images are resized.
        size: side of a patch. stride: pixels between neighbours.
    """

    height: int
    width: int
    size: int
    stride: int


def geometries(height: int, width: int) -> tuple[Geometry, ...]:
    """Return how patches of each size lie in images of a size."""
    longest = max(height, width)
    if longest > LARGEST:
        height, width = (max(6, round(side * SHRUNK / longest)) for side in (height, width))
    shortest = min(height, width)
    stride = max(1, round(shortest / 16))
    sizes = SIZES if shortest * 2 // 3 >= max(SIZES) else (max(1, min(6, shortest // 2)),)
    return tuple(Geometry(height, width, size, stride) for size in sizes)


class PatchEncoder(nn.Module):
    """Encodes images by their patches' similarity to learned filters; nothing is trained on labels.

    Patches of two sizes, in small images of one, tell fine and coarse structure. Every patch, minus
    its mean and divided by its contrast, is whitened and multiplied with N filters of its size; the
    responses z become r = relu(z - 0.25) and relu(-z - 0.25), averaged over the cells of a grid of
    3 x 3 (Coates and Ng, *The Importance of Encoding Versus Training with Sparse Coding and Vector
    Quantization*, ICML 2011). An average hides what fills a small part of a cell. So the features
    also hold the peaks (mean r^4)^(1/4) of each quarter of the image, and of the quarters together.

    Args:
        channels: of the images.
        geometries: how patches of each size lie in an image.
        filters: N (default: 200 for all sizes together).

    Attributes:
        dim: 2 N x 14 for each size, the length of a feature vector.
    """

    def __init__(
        self, channels: int, geometries: Sequence[Geometry], filters: int | None = None
    ) -> None:
        super().__init__()
        filters = filters or FILTERS // len(geometries)
        self.sizes = nn.ModuleList(PatchFilters(channels, g, filters) for g in geometries)
        self.dim = 2 * filters * VALUES * len(geometries)

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> PatchEncoder:
        """Return an encoder of the same structure as the one with this state.

        Raises:
            ValueError: its tensors do not fit each other, as in a damaged file.
        """
        layouts = [state[name] for name in sorted(state) if name.endswith("layout")]
        kernels = [state[name] for name in sorted(state) if name.endswith("kernel")]
        if not kernels:
            raise ValueError("the patches have no filters")
        found = []
        for layout, kernel in zip(layouts, kernels, strict=True):
            numbers = [int(number) for number in layout]
            side = kernel.shape[2]
            sides_fit = all(side <= length <= LARGEST for length in numbers[:2])
            if len(numbers) != 4 or numbers[2] != side or numbers[3] < 1 or not sides_fit:
                raise ValueError(f"a layout of patches does not fit: {numbers}")
            found.append(Geometry(*numbers))
        return cls(kernels[0].shape[1], found, len(kernels[0]))

    def forward(self, images: Tensor) -> Tensor:
        """Map images, pixel values 0 to 255 (B, C, H, W), to features, float (B, dim) >= 0."""
        x = self._resize(images)
        return torch.cat([filters(x) for filters in self.sizes], 1)

    def _resize(self, images: Tensor) -> Tensor:
        first = cast(PatchFilters, self.sizes[0])
        x = images.to(first.offset.dtype)
        height, width = first.geometry[:2]
        if x.shape[2] != height:
            x = resizing_matrix(x.shape[2], height).to(x) @ x
        if x.shape[3] != width:
            x = x @ resizing_matrix(x.shape[3], width).to(x).T
        return x.contiguous(memory_format=torch.channels_last)

    def learn(self, batches: Iterable[Tensor], generator: torch.Generator) -> None:
        """Learn the filters of every size from images, uint8 (n, C, H, W) each.

        Args:
            batches: at least one image; about 5,000 are enough.
        """
        sizes = [cast(PatchFilters, filters) for filters in self.sizes]
        drawn: list[list[Tensor]] = [[] for _ in sizes]
        for batch in batches:
            x = self._resize(batch)
            for filters, rows in zip(sizes, drawn, strict=True):
                rows.append(_draw_patches(x, filters.geometry.size, EACH, generator))
        for filters, rows in zip(sizes, drawn, strict=True):
            filters.learn(torch.cat(rows), generator)


class PatchFilters(nn.Module):
    """Filters of one size of patches; whitening and contrast are folded into a convolution.

    Args:
        channels, geometry, filters: as of ``PatchEncoder``.
    """

    def __init__(self, channels: int, geometry: Geometry, filters: int) -> None:
        super().__init__()
        self.geometry = geometry
        kernel = torch.zeros(filters, channels, geometry.size, geometry.size)
        self.kernel = nn.Buffer(kernel.contiguous(memory_format=torch.channels_last))
        self.offset = nn.Buffer(torch.zeros(filters))
        self.layout = nn.Buffer(torch.tensor(geometry))

    def forward(self, x: Tensor) -> Tensor:
        """Map resized images, float (B, C, H, W), to features (B, 2 N x 14) >= 0."""
        size, stride = self.geometry.size, self.geometry.stride
        # By pooling: matrix products may be set to a precision that this difference does not bear.
        moments = torch.stack([x.mean(1), x.square().mean(1)], 1)
        mean, square = F.avg_pool2d(moments, size, stride).unbind(1)
        contrast = ((square - mean.square()).clamp(min=0) + CONTRAST).rsqrt()
        z = F.conv2d(x, self.kernel, stride=stride)
        cells, quarters = (_pooling(z.shape[2], z.shape[3], n).to(z) for n in (GRID, QUARTERS))
        # (B, height * width, N), without a copy in the layout channels last.
        responses = z.permute(0, 2, 3, 1).flatten(1, 2)
        z = torch.addcmul(-self.offset, responses, contrast.flatten(1)[:, :, None])
        averages, peaks = [], []
        above = (z - THRESHOLD).clamp(min=0)
        # In place, since it is the memory that takes time here.
        for part in (above, z.add_(THRESHOLD).clamp_(max=0)):
            averages.append((cells @ part).abs())
            powers = quarters @ part.square_().square_()
            powers = torch.cat([powers, powers.mean(1, keepdim=True)], 1)
            peaks.append(powers.sqrt().sqrt())
        return torch.cat([value.flatten(1) for value in (*averages, *peaks)], 1)

    @torch.no_grad()
    def learn(self, rows: Tensor, generator: torch.Generator) -> None:
        """Learn the filters from patches, float (n, C x size x size), by spherical k-means."""
        rows = rows - rows.mean(1, keepdim=True)
        rows = rows * (rows.var(1, keepdim=True, correction=0) + CONTRAST).rsqrt()
        mean = rows.mean(0)
        rows = rows - mean
        values, vectors = torch.linalg.eigh((rows.T @ rows / len(rows)).cpu().double())
        # Rounding may make the smallest eigenvalues slightly negative.
        whitening = (vectors * (values.clamp(min=0) + WHITENING).rsqrt() @ vectors.T).to(rows)
        rows = rows @ whitening
        filters = torch.randn(len(self.offset), rows.shape[1], generator=generator).to(rows)
        filters = F.normalize(filters, dim=1)
        for _ in range(ROUNDS):
            similarity = rows @ filters.T
            nearest = similarity.abs().argmax(1)
            amount = similarity.gather(1, nearest[:, None])
            moved = torch.zeros_like(filters).index_add_(0, nearest, rows * amount)
            filters = F.normalize(filters + moved, dim=1)
        folded = filters @ whitening
        # A response to a patch minus its mean is that of a filter minus its mean.
        self.kernel.copy_((folded - folded.mean(1, keepdim=True)).view_as(self.kernel))
        self.offset.copy_(folded @ mean)


@cache
def resizing_matrix(before: int, after: int, mode: str = "bilinear") -> Tensor:
    """Return the matrix (after, before) that resizes a column as F.interpolate, antialiased.

    Unlike F.interpolate and F.adaptive_avg_pool2d, every runtime knows matrix products.
    """
    units = torch.eye(before, dtype=torch.float64)[None, None]
    return F.interpolate(units, (after, before), mode=mode, antialias=True)[0, 0]


@cache
def _pooling(height: int, width: int, grid: int) -> Tensor:
    """Return the matrix (grid^2, height * width) that averages pixels over the cells of a grid."""
    units = torch.eye(height * width, dtype=torch.float64).view(-1, height, width)
    return F.adaptive_avg_pool2d(units, grid).flatten(1).T.contiguous()


def _draw_patches(x: Tensor, size: int, each: int, generator: torch.Generator) -> Tensor:
    """Return patches, (n * each, C * size * size), from random places of images (n, C, H, W)."""
    count, channels, height, width = x.shape
    rows = torch.randint(height - size + 1, (count, each), generator=generator).to(x.device)
    columns = torch.randint(width - size + 1, (count, each), generator=generator).to(x.device)
    within = torch.arange(size, device=x.device)
    image = torch.arange(count, device=x.device)[:, None, None, None]
    at_rows = (rows[:, :, None] + within)[:, :, :, None]
    at_columns = (columns[:, :, None] + within)[:, :, None, :]
    # (n, each, size, size, C)
    patches = x.permute(0, 2, 3, 1)[image, at_rows, at_columns]
    return patches.permute(0, 1, 4, 2, 3).reshape(count * each, channels * size * size)
