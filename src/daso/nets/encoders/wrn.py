"""Wide residual networks in the form used for semi-supervised learning."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.encoders import Encoder
from daso.nets.recompute import Recomputing


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution from He's normal distribution with fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def activate(x: Tensor) -> Tensor:
    """Apply the leaky ReLU in place; the batch norm before it does not need its output again."""
    return F.leaky_relu(x, 0.1, inplace=True)


def average_pixels(x: Tensor) -> Tensor:
    """Average over the pixels: (B, C, H, W) to (B, C)."""
    return x.mean(dim=(2, 3))


class _Block(Recomputing):
    """Pre-activation residual block; the network's first one also activates its shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, activate_shortcut: bool) -> None:
        super().__init__()
        self.activate_shortcut = activate_shortcut
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.activate_shortcut:
            shortcut, inner = self.through(
                self.norm1, activate, x, lambda a: (self.shortcut(a), self.conv1(a))
            )
        else:
            shortcut, inner = self.shortcut(x), self.through(self.norm1, activate, x, self.conv1)
        out: Tensor = self.through(self.norm2, activate, inner, self.conv2)
        return out.add_(shortcut)


class WideResNet(Recomputing, Encoder):
    """WRN-depth-width (Zagoruyko & Komodakis, 2016) in the form of Oliver et al., 2018.

    Leaky ReLU 0.1, bias-free convolutions, batch norm with momentum 0.1, global average pooling.

    Args:
        depth: 10, 16, 22, 28, 40, ...: 6 n + 4, three groups of n blocks.
        width: channels are 16 w, 32 w, 64 w.
        channels: channels of the images, 1 or 3.

    Attributes:
        dim: D = 64 * width, the length of a feature vector.

    Raises:
        OptionError: the depth or the width is invalid.
    """

    def __init__(self, depth: int = 28, width: int = 2, channels: int = 3) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise OptionError(
                f"wrn-{depth}-{width}: the depth must be 6 n + 4 (10, 16, 22, 28, ...) and the "
                "width at least 1"
            )
        blocks_per_group = (depth - 4) // 6
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        blocks: list[nn.Module] = []
        inputs = 16
        for group, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            for index in range(blocks_per_group):
                stride = 2 if group and not index else 1
                blocks.append(_Block(inputs, outputs, stride, activate_shortcut=not blocks))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.dim = inputs
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.norm, activate, self.blocks(self.stem(x)), average_pixels)
