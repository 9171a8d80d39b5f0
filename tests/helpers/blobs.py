"""Features of classes that form clusters."""

from __future__ import annotations

import torch
from torch import Tensor


def blobs(counts: list[int], seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return features, float64 (N, 5), around a point for each class, and their labels."""
    centers = torch.randn(len(counts), 5, generator=torch.Generator().manual_seed(9)).double() * 2
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed)).double()
    return centers[labels] + spread * noise, labels
