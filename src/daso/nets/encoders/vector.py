"""Encoders of feature vectors: a small perceptron, and a probe for embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.encoders import Encoder
from daso.nets.encoders.wrn import activate

PROBE_LENGTH = 5.0
"""Root mean square length of the features of ``Probe``, which suits the methods' learning rates."""


class VectorEncoder(Encoder):
    """Standardizes vectors and maps them through layers of linear map, batch norm and leaky ReLU.

    Args:
        mean, std: per dimension; std > 0.
        width: outputs of every layer, at least 1, else an ``OptionError`` is raised.
        depth: number of layers; 0: the features are the standardized vectors.

    Attributes:
        dim: length of a feature vector: *width*, or D without layers.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], width: int = 256, depth: int = 2
    ) -> None:
        super().__init__()
        if depth and width < 1:
            raise OptionError(f"mlp-{width}-{depth}: the width must be at least 1")
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32))
        self.std = nn.Buffer(torch.tensor(std, dtype=torch.float32))
        sizes = [len(mean), *[width] * depth]
        self.dim = sizes[-1]
        pairs = list(itertools.pairwise(sizes))
        self.layers = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for _, o in pairs)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.1, nonlinearity="leaky_relu")  # type: ignore[arg-type]

    def vectors(self, x: Tensor) -> Tensor:
        """Return vectors with mean 0 and deviation 1 in each dimension, without those after D."""
        return (x[:, : len(self.mean)] - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        x = self.vectors(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = activate(norm(layer(x)))
        return x


class Probe(Encoder):
    """Centers vectors and scales all dimensions alike, for a linear classifier on embeddings.

    The encoder has learned how much each dimension varies, so the variances keep their ratios. The
    mean squared length of the features is 25 for any D. The heads start from zero: random weights
    in directions without labeled vectors would never change.

    Args:
        mean, std: per dimension; std > 0, and 1 where a dimension does not vary.
    """

    heads_from_zero = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.dim = len(mean)
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32))
        varying = [value for value in std if value != 1.0] or std
        length = torch.tensor(varying, dtype=torch.float64).norm()
        self.scale = nn.Buffer((PROBE_LENGTH / length).float())

    def vectors(self, x: Tensor) -> Tensor:
        """Return vectors as they are, without dimensions after D."""
        return x[:, : len(self.mean)]

    def forward(self, x: Tensor) -> Tensor:
        return (self.vectors(x) - self.mean) * self.scale
