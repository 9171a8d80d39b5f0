"""ResNet-18, -34 and -50 (He et al., 2016)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.encoders import Encoder
from daso.nets.encoders.wrn import initialise_convolutions
from daso.nets.recompute import Recomputing

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def _rectify(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)


class _Residual(Recomputing):
    """A basic (two 3 x 3) or bottleneck (1 x 1, 3 x 3, 1 x 1) block.

    Parameter names match the widely used ImageNet weights.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        kernels = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        if not bottleneck:
            kernels = [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.depth = len(kernels)
        for number, (i, o, kernel, step) in enumerate(kernels, 1):
            self.add_module(f"conv{number}", nn.Conv2d(i, o, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(o))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.get_submodule("conv1")(x)
        for number in range(1, self.depth):
            norm, conv = self.get_submodule(f"bn{number}"), self.get_submodule(f"conv{number + 1}")
            out = self.through(norm, _rectify, out, conv)
        out = self.get_submodule(f"bn{self.depth}")(out)
        return _rectify(out.add_(self.downsample(x)))


class ResNet(Encoder):
    """A residual network of *depth* 18, 34 or 50; others raise an ``OptionError``.

    Args:
        channels: 1 or 3.
        stem: ``"large"`` is the 7 x 7 convolution of stride 2 and the pooling of the paper;
            ``"small"``, for up to 64 pixels, a 3 x 3 convolution of stride 1 without pooling.

    Attributes:
        dim: D = 512 (18, 34) or 2048 (50), the length of a feature vector.
    """

    def __init__(
        self, depth: int = 34, channels: int = 3, stem: Literal["large", "small"] = "large"
    ) -> None:
        super().__init__()
        if depth not in _LAYERS:
            raise OptionError(f"resnet{depth}: the depth must be in {', '.join(map(str, _LAYERS))}")
        bottleneck = depth >= 50
        self.large = stem == "large"
        self.conv1 = nn.Conv2d(channels, 64, *((7, 2, 3) if self.large else (3, 1, 1)), bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for group, blocks in enumerate(_LAYERS[depth]):
            width = 64 * 2**group
            layer: list[nn.Module] = []
            for index in range(blocks):
                layer.append(_Residual(inputs, width, 2 if group and not index else 1, bottleneck))
                inputs = 4 * width if bottleneck else width
            self.add_module(f"layer{group + 1}", nn.Sequential(*layer))
        self.dim = inputs
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = _rectify(self.bn1(self.conv1(x)))
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        for group in range(1, 5):
            x = getattr(self, f"layer{group}")(x)
        return x.mean(dim=(2, 3))
