"""The network of a run, from its options and the shape of what goes in: for training, and for a trained model."""

from __future__ import annotations

from collections.abc import Sequence

from daso.errors import OptionError
from daso.nets.network import Encoder, Network, build_encoder, build_vector_encoder
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
    options: TrainOptions, shape: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> Encoder:
    """Build the encoder that the options name.

    Args:
        options: with the network named.
        shape: of an image, (C, H, W), or of a vector, (D,).
        mean, std: of each dimension of vectors; of images they are not used here.

    Raises:
        OptionError: there is no such network, or an option does not go with the shape.
    """
    name = str(options.network)
    if len(shape) == 1:
        if options.resolution is not None:
            raise OptionError("resolution is of images; the data are vectors")
        return build_vector_encoder(name, mean, std)
    channels, height, width = shape
    if options.resolution is not None and height != width:
        raise OptionError(f"resolution makes images square, these are {height} x {width}")
    return build_encoder(name, channels, options.resolution or max(height, width))


def build_network(
    options: TrainOptions,
    shape: Sequence[int],
    encoder: Encoder,
    heads: dict[str, int],
    mean: Sequence[float],
    std: Sequence[float],
    output: str,
) -> Network:
    """Build the network around an encoder.

    Args:
        options: precision and resolution.
        shape: of an image, (C, H, W), or of a vector, (D,).
        encoder: see ``named_encoder``.
        heads: outputs of each linear head by name.
        mean, std: of each channel of images; of vectors they are the encoder's matter.
        output: name of the head that classifies.
    """
    if len(shape) == 1:
        mean = std = ()
    return Network(encoder, heads, mean, std, options.precision, options.resolution, output)
