"""Networks of daso with weights from a safetensors file, among them ImageNet weights of ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.backbone import Backbone, Preprocessing, load_weights
from daso.nets.encoders import Encoder
from daso.nets.network import build_encoder
from daso.nets.pretrained.huggingface import IMAGENET_MEAN, IMAGENET_STD

FIRST_CONVOLUTIONS = ("conv1.weight", "stem.weight", "convolutions.0.weight")
LARGE, SMALL = 224, 32
"""Sides in pixels for which a ResNet gets the large or the small stem."""


def build_own(recipe: Mapping[str, Any]) -> Encoder:
    """Build the encoder of a recipe; its weights are random."""
    return build_encoder(recipe["network"], recipe["channels"], recipe["size"])


def open_weights(network: str, path: Path) -> Backbone:
    """Build a network of daso and load weights into it; every tensor must be present.

    The weights determine the channels and a ResNet's stem. Accepted are the tensors of an encoder,
    of a whole network (``encoder.*``, with mean and deviation), of a checkpoint (its moving
    average), and of torchvision's ResNets, whose last layer (``fc.*``) is dropped. Without a mean
    and a deviation, those of ImageNet are used for 3 channels, those of the data for 1.

    Raises:
        OptionError: the file cannot be read, or its tensors do not fit the network.
    """
    tensors = load_weights(path)
    mean: Any = None
    std: Any = None
    prefixes = (p for p in ("average.", "") if any(n.startswith(f"{p}encoder.") for n in tensors))
    if (prefix := next(prefixes, None)) is not None:
        stored = [tensors.get(f"{prefix}{name}") for name in ("mean", "std")]
        mean, std = (None if t is None else tuple(t.flatten().tolist()) or None for t in stored)
        start = f"{prefix}encoder."
        tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    tensors = {name: t for name, t in tensors.items() if name not in ("fc.weight", "fc.bias")}
    names = sorted(tensors, key=lambda name: (name not in FIRST_CONVOLUTIONS, name))
    first = next((tensors[name] for name in names if tensors[name].dim() == 4), None)
    if first is None:
        raise OptionError(f"{path} has no weights of convolutions; it does not fit {network!r}")
    channels = first.shape[1]
    size = LARGE if first.shape[2] == 7 else SMALL
    recipe = {"network": network, "channels": channels, "size": size}
    if channels not in (1, 3):
        raise OptionError(f"{path}: the first convolution has {channels} channels, not 1 or 3")
    module = build_own(recipe)
    load_strictly(module, tensors, f"{path} does not fit {network!r}")
    if mean is None and channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    return Backbone(network, "daso", module.eval(), Preprocessing(mean, std), recipe)


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load tensors into a module; all must fit, except the counters of batch norms.

    Raises:
        OptionError: a tensor does not fit; the message begins with *what* and names the first ones.
    """
    own = module.state_dict()
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    useless = [n for n in tensors if n not in own]
    other = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    shapes = [
        f"{n!r}: {_shape(tensors[n])} in the file, {_shape(own[n])} in the network" for n in other
    ]
    faults = [
        f"{len(names)} of {total} tensors {how}, for example {'; '.join(names[:2])}"
        for how, names, total in (
            ("of the network are missing", [repr(n) for n in missing], len(own)),
            ("of the file are unused", [repr(n) for n in useless], len(tensors)),
            ("have another shape", shapes, len(own)),
        )
        if names
    ]
    if faults:
        raise OptionError(f"{what}: {'. '.join(faults)}")
    module.load_state_dict(dict(tensors), strict=False)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
