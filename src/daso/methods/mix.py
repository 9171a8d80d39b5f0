"""Mixup of images with soft labels, and the forward pass over a mixed batch, as MixMatch and ReMixMatch share them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from daso.nets.network import Network


def draw_mixup(alpha: float, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the factor max(l, 1 - l), l from Beta(alpha, alpha), and for each row the row that it is mixed with."""
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
    """Return the order, int64 (parts * size,), in which part 0 has exchanged rows with each other part, evenly.

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
    """Return the features (N, D) of mixed images, float (N, C, H, W), the first *size* of which were labelled.

    They go through the network in parts of *size* rows, among which the labelled ones are spread evenly: the
    batch-norm statistics are of a part. If N is no multiple of *size*, all go at once.
    """
    parts = 1 if len(images) % size else len(images) // size
    order = interleaved_order(parts, len(images) // parts, images.device)
    return torch.cat([network(part) for part in images[order].chunk(parts)])[order]
