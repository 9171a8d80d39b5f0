"""The network: normalization, encoder and named linear heads; and encoders by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import OptionError, check_choice, nearest
from daso.nets.distributed import Processes, share_batch_norms
from daso.nets.encoders import Encoder
from daso.nets.encoders.resnet import ResNet
from daso.nets.encoders.small import SmallConvNet
from daso.nets.encoders.vector import Probe, VectorEncoder
from daso.nets.encoders.wrn import WideResNet
from daso.nets.readout import NAME, Readout

Precision = Literal["float32", "bfloat16"]
Interpolation = Literal["bilinear", "bicubic"]


class Network(nn.Module):
    """Maps images, or vectors, to features; a named linear head maps features to logits.

    The encoder may run in bfloat16; features, heads and everything after them are float32.

    Args:
        heads: outputs of each linear head by name.
        mean, std: per channel of images, in [0, 1]; empty for vectors, which the encoder
            standardizes.
        precision: of the encoder. bfloat16 uses autocast: weights, gradients and the optimizer
            stay float32.
        resolution: side in pixels to which uint8 images are resized, antialiased; None: they keep
            their size. The STL-10 protocol augments at 96 pixels and trains at 32.

    Raises:
        OptionError: the precision is unknown.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: dict[str, int],
        mean: Sequence[float],
        std: Sequence[float],
        precision: Precision = "float32",
        resolution: int | None = None,
        output: str = "class",
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        check_choice("precision", precision, get_args(Precision))
        self.encoder, self.dim, self.precision = encoder, encoder.dim, precision
        self.resolution, self.interpolation, self.output = resolution, interpolation, output
        self.encoder_is_frozen = False
        self.processes: Processes | None = None
        self.readout: Readout | None = None
        linears = {name: nn.Linear(self.dim, outputs) for name, outputs in heads.items()}
        self.heads = nn.ModuleDict(linears)
        for linear in linears.values():
            if getattr(encoder, "heads_from_zero", False):
                nn.init.zeros_(linear.weight)
            else:
                nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.mean = nn.Buffer(torch.tensor(mean).view(1, -1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(1, -1, 1, 1))
        # Convolutions are faster in the channels-last layout, on a CPU and on a GPU.
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def freeze_encoder(self) -> None:
        """Freeze the encoder and its batch-norm statistics; only heads are trained."""
        self.encoder_is_frozen = True
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Set training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.encoder.eval()
        return self

    def share(self, processes: Processes) -> None:
        """Share the computation of features among processes; batch norms span all of them."""
        self.processes = processes
        share_batch_norms(self.encoder)

    def sum_gradients(self) -> None:
        """Sum the encoder's gradients over the processes; each has the heads' whole gradients."""
        if self.processes is not None:
            self.processes.sum_gradients(self.encoder.parameters())

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize uint8 images (B, C, H, W) to float; float images pass through unchanged."""
        if images.dtype != torch.uint8:
            return images
        pixels = images.to(self.mean.dtype)
        side = self.resolution
        if side is not None and images.shape[2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":
                pixels = pixels.clamp(0, 255)
        return pixels.div_(255).sub(self.mean).div_(self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, D) of uint8 or normalized images (B, C, H, W), or of vectors."""
        return self._features(images, self.encoder)

    def _features(self, images: Tensor, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        count = len(images)
        if self.processes is not None:
            if self.training and count % self.processes.size:
                raise OptionError(
                    f"{self.processes.size} processes cannot share {count} images evenly: --batch "
                    f"must be a multiple of {self.processes.size}"
                )
            images = self.processes.share(images)
        x = self.normalize(images)
        if x.dim() == 4 and not getattr(encoder, "channels_first", False):
            x = _channels_last(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            features = encoder(x).to(self.mean.dtype)
        return features if self.processes is None else self.processes.gather(features, count)

    def represent(self, images: Tensor) -> Tensor:
        """Return the features (B, D) of images or vectors that the output head classifies."""
        return self.encode(images) if self.readout is None else self.readout(self.encode, images)

    def encode(self, images: Tensor, kind: str = "network") -> Tensor:
        """Return features (B, D) of a kind that a readout joins.

        Args:
            images: or vectors (B, D), or (B, V, D) with V versions, of which the first is used.
            kind: ``"network"``, or ``"vector"``: the vectors themselves, or the embeddings of
                images by a frozen backbone; standardized, unless the encoder is a probe.
        """
        if images.dim() == 3:
            images = images[:, 0]
        if kind == "vector":
            encoder: Any = self.encoder
            if images.dim() == 4:
                images = self._features(images, encoder.backbone)
            vectors: Tensor = getattr(encoder, "top", encoder).vectors(images)
            return vectors
        features: Tensor = self(images)
        return features

    def read_out(self, readout: Readout) -> None:
        """Let a readout classify from now on, instead of the output head."""
        self.readout, self.output = readout, NAME

    def classify(self, features: Tensor, head: str = "class") -> Tensor:
        """Return the logits, float32 (B, outputs), of features (B, D) by the named head."""
        if head == NAME:
            assert self.readout is not None
            return self.readout.classify(features)
        logits: Tensor = self.heads[head](features)
        return logits


def _channels_last(images: Tensor) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = images.shape
    if channels > 1:
        return images
    # With one channel, both layouts are the same bytes and torch picks the slow one by the strides.
    return images.as_strided(images.shape, (height * width, 1, width, 1))


def build_vector_encoder(name: str, mean: Sequence[float], std: Sequence[float]) -> Encoder:
    """Build an encoder of vectors by name.

    Args:
        name: ``mlp-<width>-<depth>``, ``mlp-<width>`` (depth 2), ``linear`` (only the head), or
            ``probe`` (only the head, for embeddings of a pretrained encoder; see ``Probe``).
        mean, std: per dimension.

    Raises:
        OptionError: the name is unknown; the message names the nearest one.
    """
    if match := re.fullmatch(r"mlp-(\d+)(?:-(\d+))?", name):
        return VectorEncoder(mean, std, int(match[1]), int(match[2] or 2))
    if name == "linear":
        return VectorEncoder(mean, std, depth=0)
    if name == "probe":
        return Probe(mean, std)
    valid = ["mlp-256", "mlp-128-1", "linear", "probe"]
    hint = f"valid: {', '.join(valid)}.{nearest(name, valid)}"
    raise OptionError(f"unknown network {name!r} for vectors; {hint}")


def is_builtin(name: str) -> bool:
    """Whether ``build_encoder`` knows a name."""
    return re.fullmatch(r"wrn-\d+-\d+|resnet\d+|small(-\d+)?", name) is not None


def build_encoder(name: str, channels: int, size: int) -> Encoder:
    """Build an encoder of images by name.

    Args:
        name: ``wrn-<depth>-<width>``, ``resnet18``, ``resnet34``, ``resnet50``, ``small`` or
            ``small-<width>``.
        channels: 1 or 3.
        size: side of the images in pixels; up to 64, ResNets get a small stem.

    Raises:
        OptionError: the name is unknown; the message names the nearest one.
    """
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return WideResNet(int(match[1]), int(match[2]), channels)
    if match := re.fullmatch(r"resnet(\d+)", name):
        return ResNet(int(match[1]), channels, "small" if size <= 64 else "large")
    if match := re.fullmatch(r"small(?:-(\d+))?", name):
        return SmallConvNet(int(match[1] or 32), channels)
    valid = ["wrn-28-2", "wrn-10-1", "resnet18", "resnet34", "resnet50", "small"]
    raise OptionError(f"unknown network {name!r}; valid: {', '.join(valid)}.{nearest(name, valid)}")
