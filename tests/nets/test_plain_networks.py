"""Networks as they are computed, in place and with channels side by side, against their formulas written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.nets.encoders.resnet import ResNet
from daso.nets.encoders.wrn import WideResNet
from daso.nets.network import Network, build_encoder


def normalized(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scaled = (x - mean) / (variance + 1e-5).sqrt()
    return norm.weight.view(1, -1, 1, 1) * scaled + norm.bias.view(1, -1, 1, 1)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    kernel = conv.kernel_size[0]
    height = (x.shape[2] - 1) // conv.stride[0] + 1
    patches = F.unfold(x, kernel, padding=kernel // 2, stride=conv.stride[0])
    return (conv.weight.contiguous().flatten(1) @ patches).unflatten(2, (height, -1))


def plain_wide_resnet(net: WideResNet, x: Tensor) -> Tensor:
    x = convolved(x, net.stem)
    for number, block in enumerate(net.blocks):
        activated = leaky(normalized(x, block.norm1))
        shortcut = activated if number == 0 else x
        if isinstance(block.shortcut, nn.Conv2d):
            shortcut = convolved(shortcut, block.shortcut)
        inner = leaky(normalized(convolved(activated, block.conv1), block.norm2))
        x = shortcut + convolved(inner, block.conv2)
    return leaky(normalized(x, net.norm)).mean((2, 3))


def plain_resnet18(net: ResNet, x: Tensor) -> Tensor:
    x = normalized(convolved(x, net.conv1), net.bn1).clamp(min=0)
    for group in range(1, 5):
        for block in getattr(net, f"layer{group}"):
            inner = normalized(convolved(x, block.conv1), block.bn1).clamp(min=0)
            shortcut = x
            if isinstance(block.downsample, nn.Sequential):
                shortcut = normalized(convolved(x, block.downsample[0]), block.downsample[1])
            x = (normalized(convolved(inner, block.conv2), block.bn2) + shortcut).clamp(min=0)
    return x.mean((2, 3))


@pytest.mark.parametrize(
    ("name", "plain", "side", "steps"),
    [("wrn-16-1", plain_wide_resnet, 12, 20), ("resnet18", plain_resnet18, 8, 2)],
)
def test_training_gives_the_numbers_of_the_formulas(
    name: str, plain: Callable[[nn.Module, Tensor], Tensor], side: int, steps: int
) -> None:
    torch.manual_seed(0)
    fast, slow = (
        Network(build_encoder(name, 3, side), {"class": 4}, [0.5] * 3, [0.25] * 3).double()
        for _ in range(2)
    )
    slow.load_state_dict(fast.state_dict())
    optimizers = [
        torch.optim.SGD(net.parameters(), 0.03, 0.9, nesterov=True) for net in (fast, slow)
    ]
    for step in range(steps):
        images, labels = torch.randn(6, 3, side, side).double(), torch.randint(0, 4, (6,))
        losses = []
        for network, features, optimizer in (
            (
                fast,
                fast.encoder(images.contiguous(memory_format=torch.channels_last)),
                optimizers[0],
            ),
            (slow, plain(slow.encoder, images), optimizers[1]),
        ):
            loss = F.cross_entropy(network.classify(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-8), step
    for (key, value), other in zip(fast.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-8, atol=1e-10, msg=key)
