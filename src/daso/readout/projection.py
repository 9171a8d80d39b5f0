"""Project features of any kind to few dimensions that linear models take well."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 5_000
"""Rows to fit a projection on; more change the leading components little."""
OVERSAMPLED = 10
"""Additional random directions of the singular value decomposition."""


@dataclass(frozen=True)
class Projection:
    """Maps features x (N, D) to leading principal components (N, d) of their directions.

    z = (x - center) / |x - center| @ matrix + bias. Features that are never negative, such as
    averages of rectified responses, are first replaced by their square roots, which tames their
    long tails. The mean square of all coordinates together is 1.

    Attributes:
        rooted: whether square roots are taken.
        center: (D,). matrix: (D, d). bias: (d,).
    """

    rooted: bool
    center: Tensor
    matrix: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, features: Tensor, dimensions: int) -> Projection:
        """Fit a projection to features, float (N, D), with d = min(*dimensions*, D, N)."""
        features = sample_rows(features, MOST_ROWS)
        rooted = bool((features >= 0).all())
        center = root(features, rooted).mean(0)
        unit = F.normalize(root(features, rooted) - center, dim=1)
        return cls(rooted, center, *principal_components(unit, dimensions))

    def __call__(self, features: Tensor) -> Tensor:
        unit = F.normalize(root(features, self.rooted) - self.center, dim=1)
        return unit @ self.matrix + self.bias


def root(features: Tensor, rooted: bool | Tensor) -> Tensor:
    """Return the square roots of features, where *rooted*; of negative ones 0."""
    if isinstance(rooted, bool):
        return features.clamp(min=0).sqrt() if rooted else features
    return torch.where(rooted, features.clamp(min=0).sqrt(), features)


def principal_components(rows: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Return matrix (D, d) and bias (d,) of the leading principal components of rows (N, D).

    The mean square of all coordinates of rows @ matrix + bias is 1; less where the rows are equal.
    """
    rows = sample_rows(rows, MOST_ROWS)
    mean = rows.mean(0)
    size = min(dimensions, *rows.shape)
    centered = rows - mean
    if size + OVERSAMPLED >= min(rows.shape):
        directions = torch.linalg.svd(centered, full_matrices=False).Vh[:size].T
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            directions = torch.svd_lowrank(centered, size + OVERSAMPLED, niter=2)[2][:, :size]
    directions = directions.contiguous()
    scale = (centered @ directions).square().mean().clamp(min=1e-12).rsqrt()
    matrix = directions * scale
    return matrix, -(mean @ matrix)


def sample_rows(rows: Tensor, most: int) -> Tensor:
    """Return at most *most* rows, drawn without replacement, the same ones each time."""
    if len(rows) <= most:
        return rows
    generator = torch.Generator().manual_seed(0)
    return rows[torch.randperm(len(rows), generator=generator)[:most].sort().values.to(rows.device)]
