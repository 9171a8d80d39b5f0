"""From uint8 images to logits, in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from daso.nets.network import Network


@torch.no_grad()
def predict_logits(network: Network, images: Tensor, batch: int = 512) -> Tensor:
    """Return the logits, float32 (N, K) on the host, of uint8 images (N, C, H, W) by the head ``"class"``.

    The network works in evaluation mode and is left in the mode it was in.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    parts = [network.classify(network(chunk.to(device))) for chunk in torch.split(images, batch)]
    network.train(training)
    return torch.cat(parts).cpu()
