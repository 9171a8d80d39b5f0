"""Encoders of the timm library, with safetensors from the hub or from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from daso.errors import OptionError, first_line
from daso.nets.backbone import Backbone, Preprocessing, load_weights, measure
from daso.nets.encoders import Encoder
from daso.nets.network import Interpolation
from daso.nets.pretrained.huggingface import STRIDE, fetch
from daso.nets.pretrained.own_weights import load_strictly
from daso.nets.pretrained.timm_import import import_timm
from daso.nets.pretrained.timm_names import to_timm_names


class TimmEncoder(Encoder):
    """A timm model without its classifier, from ``timm.create_model`` with ``num_classes=0``.

    *side* is that of the images in pixels.
    """

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model = model
        self.dim = measure(model, 3, side, side)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model(x)
        return features


def open_timm(name: str, resolution: int | None, weights: Path | None) -> Backbone:
    """Load a pretrained model of timm.

    Args:
        resolution: side of the images in pixels; None: the model's own.
        weights: safetensors file instead of the hub's; see ``to_timm_names``. The tensors of a
            classifier are dropped.

    Raises:
        MissingDependencyError: timm cannot be imported.
        OptionError: the model is unknown, or its weights cannot be fetched or do not fit.
    """
    timm = import_timm()
    own = _create(timm, name, None)
    about: dict[str, Any] = own.pretrained_cfg
    side = resolution or int(about["input_size"][-1])
    other_side = side if side != about["input_size"][-1] else None
    recipe = {"model": name, "side": other_side, "timm": timm.__version__}
    if weights is None:
        if not about.get("hf_hub_id"):
            raise OptionError(f"the hub has no weights of timm's {name!r}; use --weights FILE")
        file = "model.safetensors"
        weights = fetch(about["hf_hub_id"], file, f"--weights FOLDER/{file}")
    model = own if recipe["side"] is None else _create(timm, name, side)
    tensors = to_timm_names(load_weights(weights), model)
    last = about.get("classifier") or ()
    dropped = tuple(f"{layer}." for layer in ((last,) if isinstance(last, str) else last))
    tensors = {n: t for n, t in tensors.items() if not n.startswith(dropped)}
    load_strictly(model, tensors, f"{weights} does not fit {name!r}")
    encoder = TimmEncoder(model, side)
    return Backbone(f"timm:{name}", "timm", encoder.eval(), timm_preprocessing(about, side), recipe)


def timm_side(name: str) -> tuple[int, int] | None:
    """Return a model's own side in pixels and the divisor of other sides.

    Returns None if the model is unknown or accepts no other side.
    """
    about = import_timm().get_pretrained_cfg(name)
    if about is None:
        return None
    patch = re.search(r"_patch(\d+)", name)
    if about.fixed_input_size and not (patch and name.startswith(("vit_", "deit"))):
        return None
    return int(about.input_size[-1]), int(patch.group(1)) if patch else STRIDE


def timm_preprocessing(about: Mapping[str, Any], side: int | None) -> Preprocessing:
    """Return the preprocessing in a timm model's ``pretrained_cfg``; *side* overrides its side."""
    is_bilinear = about.get("interpolation") == "bilinear"
    interpolation: Interpolation = "bilinear" if is_bilinear else "bicubic"
    mean, std = tuple(map(float, about["mean"])), tuple(map(float, about["std"]))
    return Preprocessing(mean, std, side or int(about["input_size"][-1]), interpolation)


def build_timm(recipe: Mapping[str, Any]) -> Encoder:
    """Build the encoder of a recipe of ``open_timm`` with random weights."""
    timm = import_timm()
    model = _create(timm, recipe["model"], recipe["side"])
    return TimmEncoder(model, recipe["side"] or int(model.pretrained_cfg["input_size"][-1]))


def _create(timm: Any, name: str, side: int | None) -> Any:
    # Makes vision transformers interpolate their position embeddings.
    arguments = {} if side is None else {"dynamic_img_size": True}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except TypeError:
        # Convolutional networks accept every size, but not this argument.
        return timm.create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, KeyError) as error:
        raise OptionError(f"timm cannot build {name!r}: {first_line(error)}") from error
