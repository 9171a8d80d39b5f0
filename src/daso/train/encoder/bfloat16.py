"""Fall back to float32 for images too small for torch's bfloat16 convolutions on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from daso.nets.network import Network


def fall_back_to_float32(network: Network, shape: Sequence[int]) -> None:
    """Make a network compute in float32 where bfloat16 would give it wrong gradients.

    On a CPU, torch 2.13 leaves a part of the gradient of a bfloat16 convolution uninitialized where
    the stride exceeds the input: NaN or any number. Encoders of timm and transformers reduce images
    32 times, so 16 pixels are too few.

    Args:
        shape: shape of an image, (C, H, W), or of a vector, (D,).
    """
    concerned = (
        network.mean.device.type == "cpu" and network.precision == "bfloat16" and len(shape) == 3
    )
    if concerned and _has_stride_beyond_input(network, shape):
        network.precision = "float32"


def _has_stride_beyond_input(network: Network, shape: Sequence[int]) -> bool:
    exceeds: list[bool] = []

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stride = cast(nn.Conv2d, module).stride
        sides = inputs[0].shape[2:]
        exceeds.append(any(side < step for side, step in zip(sides, stride, strict=True)))

    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(check) for module in convolutions]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, dtype=torch.uint8))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return any(exceeds)
