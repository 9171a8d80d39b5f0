"""Images so small that torch's bfloat16 convolutions on a CPU cannot train on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from daso.nets.network import Network


def spare_bfloat16(network: Network, shape: Sequence[int]) -> None:
    """Let a network compute in float32 where bfloat16 would give it gradients of memory that was never set.

    On a CPU, torch 2.13 leaves a part of the gradient of a bfloat16 convolution unset where its stride is larger than
    its input: NaN, or any number. Encoders of timm and transformers reduce images 32 times, so 16 pixels are too few.

    Args:
        network: on its device, its encoder to be trained.
        shape: of an image, (C, H, W), or of a vector, (D,).
    """
    on_cpu = network.mean.device.type == "cpu"
    if on_cpu and network.precision == "bfloat16" and len(shape) == 3 and _starves(network, shape):
        network.precision = "float32"


def _starves(network: Network, shape: Sequence[int]) -> bool:
    """Pass one image through the encoder and tell whether a convolution takes longer steps than its input is."""
    found: list[bool] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stride = cast(nn.Conv2d, module).stride
        found.append(
            any(side < step for side, step in zip(inputs[0].shape[2:], stride, strict=True))
        )

    hooks = [
        module.register_forward_pre_hook(look)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, dtype=torch.uint8))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return any(found)
