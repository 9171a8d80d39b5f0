"""Mixup, and the forward pass over a mixed batch, for MixMatch and ReMixMatch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from daso.nets.network import Network


def draw_mixup(alpha: float, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the factor max(l, 1 - l), l from Beta(alpha, alpha), and the partner of each row."""
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    factor = np.random.default_rng(seed).beta(alpha, alpha)
    return {
        "mixup_factor": torch.tensor(max(factor, 1 - factor), dtype=torch.float32),
        "mixup_order": torch.randperm(rows, generator=generator),
    }


def mixup(values: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """Return factor * row + (1 - factor) * partner for each row of *values*, float (N, ...)."""
    factor = draws["mixup_factor"]
    return factor * values + (1 - factor) * values[draws["mixup_order"]]


def interleaved_order(parts: int, size: int, device: torch.device) -> Tensor:
    """Return the order, int64 (parts * size,), by which part 0 exchanges rows with all.

    Every part keeps its size. The exchange is its own inverse.
    """
    rows = torch.arange(parts * size, device=device).view(parts, size)
    column = torch.arange(size, device=device)
    partner = (-1 - column) % parts
    order = rows.clone()
    order[partner, column] = rows[0]
    order[0] = rows[partner, column]
    return order.flatten()


def encode_interleaved(network: Network, images: Tensor, size: int) -> Tensor:
    """Return the features (N, D) of mixed images, float (N, C, H, W), the first *size* labeled.

    They go through the network in parts of *size* rows, over which the labeled rows are spread
    evenly, so that batch-norm statistics are those of a part. If N is not a multiple of *size*, all
    rows are one part.
    """
    parts = 1 if len(images) % size else len(images) // size
    order = interleaved_order(parts, len(images) // parts, images.device)
    return torch.cat([network(part) for part in images[order].chunk(parts)])[order]
