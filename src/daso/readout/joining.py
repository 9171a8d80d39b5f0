"""Join features of several kinds, such as those of patches and of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from daso.readout.projection import Projection, principal_components

OVERFIT_SCALE = 0.2
"""Scale of the features of a network that began at random weights. Such a network separates the
images that it was trained on better than others: with the scale 1, features of 1,000 steps and of
patches together were worse than those of patches alone on CIFAR-10 (LOG.md, 2026-11-29), and with
0.3 on photographs of solar cells (2026-11-30)."""


@dataclass(frozen=True)
class Projected:
    """A projection of features of one kind, and those of the labeled and unlabeled images.

    Attributes:
        scale: factor of the features among those of other kinds.
    """

    projection: Projection
    labeled: Tensor
    unlabeled: Tensor
    scale: float = 1.0

    def first(self, unlabeled: int) -> Projected:
        """Return it with the first unlabeled images only; their order is random."""
        return replace(self, unlabeled=self.unlabeled[:unlabeled])


@dataclass(frozen=True)
class Joined:
    """Features of all kinds, joined, with the map from each kind's projection to them.

    Attributes:
        labeled: (N, d). unlabeled: (U, d).
        matrices: one for each kind, (d of the kind, d).
        bias: (d,).
    """

    labeled: Tensor
    unlabeled: Tensor
    matrices: tuple[Tensor, ...]
    bias: Tensor


def join(kinds: Sequence[Projected], dimensions: int) -> Joined:
    """Join features of several kinds by their components.

    Each kind has the same total variance, times its scale squared.
    """
    sizes = [len(kind.projection.bias) for kind in kinds]
    factors = [kind.scale / size**0.5 for kind, size in zip(kinds, sizes, strict=True)]
    pairs = list(zip(kinds, factors, strict=True))
    labeled = torch.cat([kind.labeled * factor for kind, factor in pairs], 1)
    unlabeled = torch.cat([kind.unlabeled * factor for kind, factor in pairs], 1)
    matrix, bias = principal_components(torch.cat([labeled, unlabeled]), dimensions)
    parts = torch.split(matrix, sizes)
    return Joined(
        labeled @ matrix + bias,
        unlabeled @ matrix + bias,
        tuple(part * factor for part, factor in zip(parts, factors, strict=True)),
        bias,
    )
