"""From uint8 images to logits, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from daso.data.images.pool import ImageRows
from daso.nets.network import Network

PIXELS, PIXELS_CPU = 2**21, 2**17
"""Of a batch: what its activations need grows with them. A CPU is as fast on 32 small images as on 1,024."""
FEWEST, VECTORS = 8, 4096


def rows_at_once(shape: Sequence[int], device: torch.device, resolution: int | None = None) -> int:
    """Return how many images (C, H, W) or vectors (D,) go through a network at a time when none learns from them.

    Args:
        shape: of one of them.
        device: of the network.
        resolution: side in pixels to which the network resizes them; None: they stay as they are.
    """
    if len(shape) != 3:
        return VECTORS
    pixels = max(shape[1] * shape[2], (resolution or 0) ** 2)
    return max(FEWEST, (PIXELS_CPU if device.type == "cpu" else PIXELS) // pixels)


def predict_logits(network: Network, images: ImageRows) -> Tensor:
    """Return the logits, float32 (N, K) on the host; see ``predict_in_batches``."""
    return torch.cat(list(predict_in_batches(network, images))).cpu()


@torch.no_grad()
def predict_in_batches(network: Network, images: ImageRows) -> Iterator[Tensor]:
    """Yield the logits, float32 (n, K) on the network's device, of what it was made for, by its output head.

    Images are uint8 (N, C, H, W), vectors float32 (N, D), or (N, V, D) in V versions of which the first is asked.
    The network works in evaluation mode and is left in the mode it was in.
    """
    device = next(network.parameters()).device
    training = network.training
    if images.dim() == 3 and isinstance(images, Tensor):
        images = images[:, 0]
    batch = rows_at_once(images.shape[1:], device, network.resolution)
    network.eval()
    try:
        for start in range(0, max(1, len(images)), batch):
            yield network.classify(
                network(images[start : start + batch].to(device)), network.output
            )
    finally:
        network.train(training)
