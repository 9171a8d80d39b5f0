"""Encoders of feature vectors: standardisation, then a small perceptron, or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.wrn import activate


class VectorEncoder(nn.Module):
    """Standardises vectors and maps them through layers of a linear map, batch norm and leaky ReLU.

    Args:
        mean, std: of each of the D dimensions; std > 0.
        width: outputs of every layer.
        depth: layers; 0: the features are the standardised vectors.

    Attributes:
        dim: length of a feature vector: *width*, or D without layers.

    Raises:
        OptionError: the width is less than 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], width: int = 256, depth: int = 2) -> None:
        super().__init__()
        if depth and width < 1:
            raise OptionError(f"mlp-{width}-{depth}: the width must be at least 1")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        sizes = [len(mean), *[width] * depth]
        self.dim = sizes[-1]
        pairs = list(itertools.pairwise(sizes))
        self.layers = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for _, o in pairs)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.1, nonlinearity="leaky_relu")  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors, float (B, D), to features, float (B, dim)."""
        x = (x - self.mean) / self.std
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = activate(norm(layer(x)))
        return x
