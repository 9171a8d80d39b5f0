"""A small convolutional network for small images (8 x 8 digits, 28 x 28 gray ones)."""

from __future__ import annotations

from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.encoders import Encoder
from daso.nets.encoders.wrn import activate, average_pixels, initialise_convolutions
from daso.nets.recompute import Recomputing


class SmallConvNet(Recomputing, Encoder):
    """Four 3 x 3 convolutions with batch norm and leaky ReLU, two of stride 2; average pooling.

    Args:
        width: channels of the first layer, at least 1, else an ``OptionError`` is raised.
        channels: channels of the images, 1 or 3.

    Attributes:
        dim: D = 4 * width, the length of a feature vector.
    """

    def __init__(self, width: int = 32, channels: int = 1) -> None:
        super().__init__()
        if width < 1:
            raise OptionError(f"small-{width}: the width must be at least 1")
        sizes = [
            (channels, width, 1), (width, 2 * width, 2),
            (2 * width, 2 * width, 1), (2 * width, 4 * width, 2),
        ]  # fmt: skip
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, s, 1, bias=False) for i, o, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _ in sizes)
        self.dim = 4 * width
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolutions[0](x)
        for norm, use in zip(self.norms, [*self.convolutions[1:], average_pixels], strict=True):
            x = self.through(norm, activate, x, use)
        return x
