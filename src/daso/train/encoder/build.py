"""The network of a run, from its options and the shape of what goes in: for training, and for a trained model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.backbone import Preprocessing, read_preprocessing
from daso.nets.network import Encoder, Network, build_encoder, build_vector_encoder
from daso.train.encoder.pretrained import build_module
from daso.train.options import TrainOptions


def default_network(shape: Sequence[int], resolution: int | None) -> str:
    """Return the network to take when none is named.

    Args:
        shape: of an image, (C, H, W), or of a vector, (D,).
        resolution: side in pixels to which images are resized; None: they stay as they are.
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
    module: nn.Module | None = None,
) -> Encoder:
    """Build the encoder of a training.

    Args:
        options: with the network named; with ``freeze`` the one on the embeddings is built.
        shape: of an image, (C, H, W), or of a vector, (D,).
        mean, std: of each dimension of vectors; of images they are not used here.
        module: an encoder of images with weights to start from, which is copied; None: weights are random.

    Raises:
        OptionError: there is no such network, or an option does not go with the shape.
    """
    if len(shape) == 1:
        if options.freeze:
            return build_vector_encoder(options.embedding_network, mean, std)
        if options.resolution is not None:
            raise OptionError("resolution is of images; the data are vectors")
        return build_vector_encoder(str(options.network), mean, std)
    channels, height, width = shape
    if options.resolution is not None and height != width:
        raise OptionError(f"resolution makes images square, these are {height} x {width}")
    if module is not None:
        return cast(Encoder, copy.deepcopy(module))
    return build_encoder(str(options.network), channels, options.resolution or max(height, width))


def build_network(
    options: TrainOptions,
    shape: Sequence[int],
    encoder: Encoder,
    heads: dict[str, int],
    mean: Sequence[float],
    std: Sequence[float],
    output: str,
    preprocessing: Preprocessing | None = None,
) -> Network:
    """Build the network around an encoder.

    Args:
        options: precision and resolution.
        shape: of an image, (C, H, W), or of a vector, (D,).
        encoder: see ``named_encoder``.
        heads: outputs of each linear head by name.
        mean, std: of each channel of images; of vectors they are the encoder's matter.
        output: name of the head that classifies.
        preprocessing: of a pretrained encoder, complete; it goes before the others.
    """
    if preprocessing is not None and len(shape) == 3:
        given = preprocessing
        assert given.mean is not None
        assert given.std is not None
        return Network(
            encoder,
            heads,
            given.mean,
            given.std,
            options.precision,
            given.resolution,
            output,
            given.interpolation,
        )
    if len(shape) == 1:
        mean = std = ()
    return Network(encoder, heads, mean, std, options.precision, options.resolution, output)


class EmbeddingClassifierEncoder(nn.Module):
    """A frozen backbone and what was trained on its embeddings, one after the other: images in, features out.

    Embeddings are taken, too, in place of images.

    Args:
        backbone: maps normalised images to embeddings, float (B, E).
        top: maps embeddings to features, float (B, dim).
    """

    def __init__(self, backbone: nn.Module, top: Encoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.top = top
        self.dim = top.dim

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images, float (B, C, H, W), or embeddings, float (B, E), to features, float (B, dim)."""
        return self.top(self.backbone(x).float() if x.dim() == 4 else x)


def trained_encoder(
    options: TrainOptions, data: Mapping[str, Any], given: nn.Module | None = None
) -> tuple[Encoder, Preprocessing | None]:
    """Build the encoder of a trained model, whose weights are loaded afterwards.

    Args:
        options: of its training.
        data: as in ``data.json``: with ``backbone`` and ``embedding`` if it has a pretrained one, and a frozen one.
        given: the encoder of one's own that the training was given.

    Returns:
        The encoder, and the preprocessing of a pretrained one.

    Raises:
        OptionError: it cannot be built, or an encoder of one's own is needed.
    """
    shape, mean, std = [int(n) for n in data["image_shape"]], data["mean"], data["std"]
    about = data.get("backbone")
    if about is None:
        return named_encoder(options, shape, mean, std), None
    module = build_module(about, given)
    preprocessing = read_preprocessing(about["preprocessing"])
    if not data.get("embedding"):
        return cast(Encoder, module), preprocessing
    top = named_encoder(options, [int(about["dim"])], mean, std)
    return EmbeddingClassifierEncoder(module, top), preprocessing
