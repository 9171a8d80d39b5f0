"""Compute logits of uint8 images in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from daso.data.images.pool import ImageRows
from daso.nets.network import Network

PIXELS, PIXELS_CPU = 2**21, 2**17
"""Pixels in a batch, which bound its memory. More do not make a CPU faster."""
FEWEST_IMAGES, VECTORS = 8, 4096
"""Least images and number of vectors in a batch."""


def rows_at_once(shape: Sequence[int], device: torch.device, resolution: int | None = None) -> int:
    """Return the batch size for prediction.

    Args:
        shape: of an image (C, H, W) or a vector (D,).
        device: of the network.
        resolution: side in pixels to which the network resizes images; None if it does not.
    """
    if len(shape) != 3:
        return VECTORS
    pixels = max(shape[1] * shape[2], (resolution or 0) ** 2)
    return max(FEWEST_IMAGES, (PIXELS_CPU if device.type == "cpu" else PIXELS) // pixels)


def predict_logits(network: Network, images: ImageRows) -> Tensor:
    """Return the logits, float32 (N, K) on the CPU; see ``predict_in_batches``."""
    return torch.cat(list(predict_in_batches(network, images))).cpu()


@torch.no_grad()
def predict_in_batches(network: Network, images: ImageRows) -> Iterator[Tensor]:
    """Yield the logits of the output head, float32 (n, K); see ``represent_in_batches``."""
    for features in represent_in_batches(network, images):
        yield network.classify(features, network.output)


@torch.no_grad()
def represent_in_batches(
    network: Network,
    images: ImageRows,
    encode: Callable[[Tensor], Tensor] | None = None,
    index: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the features that the output head classifies, (n, D) on the network's device.

    Images are uint8 (N, C, H, W), vectors float32 (N, D), or (N, V, D) with V versions, of which
    the first is used, and by a readout those that are mirrored. The network runs in evaluation
    mode and returns to its previous mode.

    Args:
        encode: computes other features with the network.
        index: int64 (M,), the images to take; None: all.
    """
    device = next(network.parameters()).device
    training = network.training
    batch = rows_at_once(images.shape[1:], device, network.resolution)
    network.eval()
    try:
        for start in range(0, max(1, len(images) if index is None else len(index)), batch):
            rows: slice | Tensor = slice(start, start + batch)
            if index is not None:
                rows = index[rows].to(images.device)
            yield (encode or network.represent)(images[rows].to(device))
    finally:
        network.train(training)
