"""Build the network of a run, for training and for a trained model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from daso.errors import OptionError, named
from daso.nets.backbone import Preprocessing, read_preprocessing
from daso.nets.encoders import Encoder
from daso.nets.network import Network, Precision, build_encoder, build_vector_encoder
from daso.train.encoder.pretrained import build_module
from daso.train.options import TrainOptions


def default_network(shape: Sequence[int], resolution: int | None) -> str:
    """Return the default network for images, (C, H, W), or vectors, (D,).

    Images are resized to *resolution*, unless it is None.
    """
    if len(shape) == 1:
        return "mlp-256"
    size = resolution or max(shape[1:])
    if size <= 28:
        return "small"
    return "wrn-28-2" if size <= 64 else "resnet18"


def named_encoder(
    options: TrainOptions,
    shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    module: Encoder | None = None,
) -> Encoder:
    """Build the encoder of a training.

    Args:
        options: names the network, and with ``freeze`` the network on the embeddings.
        shape: shape of an image, (C, H, W), or of a vector, (D,).
        mean, std: of each dimension of vectors; unused for images.
        module: encoder of images with weights, which is copied; None: the weights are random.

    Raises:
        OptionError: the network does not exist, or an option does not fit the shape.
    """
    if len(shape) == 1:
        if options.freeze:
            return build_vector_encoder(options.embedding_network, mean, std)
        if options.resolution is not None:
            raise OptionError(f"{named('resolution')} is for images; the data are vectors")
        return build_vector_encoder(str(options.network), mean, std)
    channels, height, width = shape
    if options.resolution is not None and height != width:
        raise OptionError(
            f"{named('resolution')} needs square images, these are {width} x {height}"
        )
    if module is not None:
        return copy.deepcopy(module)
    return build_encoder(str(options.network), channels, options.resolution or max(height, width))


def build_network(
    options: TrainOptions,
    shape: Sequence[int],
    encoder: Encoder,
    heads: dict[str, int],
    output: str,
    preprocessing: Preprocessing,
) -> Network:
    """Build the network around an encoder.

    Args:
        preprocessing: of images; an encoder of vectors has its own mean and deviation.
    """
    used = Preprocessing((), (), options.resolution) if len(shape) == 1 else preprocessing
    precision = cast(Precision, options.precision)  # which is resolved
    size, interpolation = used.resolution, used.interpolation
    return Network(
        encoder, heads, used.mean or (), used.std or (), precision, size, output, interpolation
    )


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


class EmbeddingClassifierEncoder(Encoder):
    """A frozen backbone followed by the encoder trained on its embeddings."""

    def __init__(self, backbone: nn.Module, top: Encoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.top = top
        self.dim = top.dim

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images, float (B, C, H, W), or embeddings, float (B, E), to features."""
        features: Tensor = self.top(self.backbone(x).float() if x.dim() == 4 else x)
        return features


def trained_encoder(
    options: TrainOptions, data: Mapping[str, Any], given: nn.Module | None = None
) -> tuple[Encoder, Preprocessing]:
    """Build the encoder of a trained model, whose weights are loaded afterwards.

    Args:
        given: the custom encoder that the training was given, if any.

    Returns:
        The encoder, and the preprocessing of its images.

    Raises:
        OptionError: the encoder cannot be built, or a custom one is missing.
    """
    shape, mean, std = [int(n) for n in data["image_shape"]], data["mean"], data["std"]
    about = data.get("backbone")
    if about is None:
        encoder = named_encoder(options, shape, mean, std)
        return encoder, Preprocessing(tuple(mean), tuple(std), options.resolution)
    module = build_module(about, given)
    preprocessing = read_preprocessing(about["preprocessing"])
    if not data.get("embedding"):
        return module, preprocessing
    top = named_encoder(options, [int(about["dim"])], mean, std)
    return EmbeddingClassifierEncoder(module, top), preprocessing
