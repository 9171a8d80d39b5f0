"""One module from images to probabilities, for files that other programs run."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from daso.nets.encoders.patches import resizing_matrix
from daso.nets.network import Network


class Deployed(nn.Module):
    """A module from uint8 images (N, C, H, W) of a fixed size to probabilities (N, K).

    It holds preprocessing, network, temperature and softmax, all in float32. Resizing to the
    network's resolution is a product with two matrices, taken from torch's own resizing: runtimes
    differ in how they resize, but not in how they multiply.

    Args:
        input_shape: channels, height and width of the images; for a model of vectors their length.
        temperature: divisor of the logits, > 0.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, network: Network, input_shape: tuple[int, ...], temperature: float) -> None:
        super().__init__()
        self.takes_images = len(input_shape) == 3
        self.encoder = network.encoder
        self.readout = network.readout
        self.head = None if network.readout is not None else network.heads[network.output]
        self.temperature = temperature
        self.clamps = network.interpolation == "bicubic"
        self.resizes = False
        self.mean = nn.Buffer(network.mean.detach().clone())
        self.std = nn.Buffer(network.std.detach().clone())
        resolution = network.resolution
        if self.takes_images and resolution and input_shape[1:] != (resolution, resolution):
            self.resizes = True
            for name, side in zip(("rows", "columns"), input_shape[1:], strict=True):
                matrix = resizing_matrix(side, resolution, network.interpolation).float()
                self.register_buffer(name, matrix.to(network.mean.device))

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities, float32 (N, K), of images (N, C, H, W) or vectors (N, D)."""
        x = images.float()
        if self.readout is not None:
            logits = self.readout.classify(self.readout(self._encode, x))
        else:
            assert self.head is not None
            logits = self.head(self._encode(x, "network"))
        return torch.softmax(logits / self.temperature, dim=1)

    def _encode(self, x: Tensor, kind: str) -> Tensor:
        encoder: Any = self.encoder
        if kind == "vector":
            if self.takes_images:
                x, encoder = self._run(encoder.backbone, x), encoder.top
            vectors: Tensor = encoder.vectors(x)
            return vectors
        return self._run(encoder, x)

    def _run(self, encoder: nn.Module, x: Tensor) -> Tensor:
        if self.takes_images:
            if self.resizes:
                x = self.rows @ x @ self.columns.t()
                if self.clamps:
                    x = x.clamp(0, 255)
            x = (x / 255 - self.mean) / self.std
        return cast(Tensor, encoder(x).float())
