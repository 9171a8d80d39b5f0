"""Weak and strong views of feature vectors: stored versions, noise, masking and mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from daso.views.geometry import move


@dataclass(frozen=True)
class VectorDraws:
    """The draws of a view of B vectors of D dimensions.

    ``version`` (B,) holds int64 indices of versions, ``noise`` (B, D) standard normal numbers,
    ``kept`` (B, D) is false where a dimension is masked, ``partner`` (B,) holds the int64 index, in
    the batch, of the vector to mix with, and ``share`` (B,) the share of that vector.
    """

    version: Tensor
    noise: Tensor
    kept: Tensor
    partner: Tensor
    share: Tensor


def draw_vectors(
    count: int, dim: int, generator: torch.Generator, *, versions: range, mask: float, mix: float
) -> VectorDraws:
    """Draw a view of *count* vectors from a CPU generator.

    Args:
        versions: range of versions to draw from, uniformly.
        mask: probability that a dimension is masked.
        mix: upper bound of the share of another vector, which is uniform from 0.
    """
    version = torch.randint(versions.start, versions.stop, (count,), generator=generator)
    noise = torch.randn(count, dim, generator=generator)
    kept = torch.rand(count, dim, generator=generator) >= mask
    partner = torch.randperm(count, generator=generator)
    return VectorDraws(version, noise, kept, partner, mix * torch.rand(count, generator=generator))


def view_vectors(
    vectors: Tensor, batches: Sequence[VectorDraws], *, noise: float, mean: Tensor, std: Tensor
) -> Tensor:
    """Return a view of vectors, float32 (N, D).

    Vectors are mixed first, then noise is added, then masked dimensions are set to their mean.

    Args:
        vectors: float32, (N, V, D), of several batches in order.
        batches: draws of each batch; vectors are mixed within a batch.
        noise: noise in standard deviations of each dimension.
        mean, std: per dimension, float32 (D,).
    """
    device, offset, partners = vectors.device, 0, []
    for draws in batches:
        partners.append(draws.partner + offset)
        offset += len(draws.partner)

    def joined(name: str) -> Tensor:
        return move(torch.cat([getattr(draws, name) for draws in batches]), device)

    version = joined("version")
    share = joined("share")[:, None]  # of torch's default type, as all draws
    chosen = vectors[torch.arange(len(vectors), device=device), version].to(share.dtype)
    mixed = torch.lerp(chosen, chosen[move(torch.cat(partners), device)], share)
    return torch.where(joined("kept"), mixed + noise * std * joined("noise"), mean)
