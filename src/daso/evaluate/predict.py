"""From uint8 images to logits, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from daso.data.store import ImageRows
from daso.nets.network import Network

PIXELS = 512 * 32 * 32
"""Of a batch: what its activations need grows with them."""
VECTORS = 4096


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
    batch = VECTORS
    if images.dim() == 4:
        pixels = images.shape[2] * images.shape[3]
        batch = max(1, PIXELS // max(pixels, (network.resolution or 0) ** 2))
    network.eval()
    try:
        for start in range(0, max(1, len(images)), batch):
            yield network.classify(network(images[start : start + batch].to(device)), network.output)
    finally:
        network.train(training)
