"""Find the pretrained encoder of a run, keep it in the run folder, and build it from there."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from daso.data.training_data import TrainingData
from daso.errors import OptionError, RunError, typed
from daso.files import read_json
from daso.nets.backbone import (
    ABOUT,
    WEIGHTS,
    Backbone,
    ModuleEncoder,
    Preprocessing,
    checksum,
    load_backbone,
    measure,
)
from daso.nets.encoders import Encoder
from daso.nets.network import is_builtin
from daso.nets.pretrained.huggingface import (
    build_transformers,
    open_transformers,
    transformers_side,
)
from daso.nets.pretrained.own_weights import build_own, load_strictly, open_weights
from daso.nets.pretrained.timm_models import build_timm, open_timm, timm_preprocessing, timm_side
from daso.train.config import RunConfig
from daso.train.folder.checkpoint import load_checkpoint, without_prefix
from daso.train.options import TrainOptions

FOLDER = "backbone"
"""Folder, in a run folder, with the pretrained encoder as it was at the start."""
PYTHON = "python:"
"""Prefix of the network's name in a run with a custom encoder."""
ENLARGED = 4
"""Factor by which images are enlarged; docs/backbones.md has the measurements."""


def open_backbone(
    options: TrainOptions, shape: Sequence[int], encoder: nn.Module | None = None
) -> Backbone | None:
    """Return the pretrained encoder that the options name; None if they name none.

    Args:
        encoder: custom module, which overrides the options' network.

    Raises:
        OptionError: the encoder cannot be found, or does not fit the images or the options.
        MissingDependencyError: its library is not installed.
    """
    if len(shape) == 1:
        if encoder is not None or options.freeze or is_pretrained(options):
            raise OptionError("pretrained encoders are for images; the data are vectors already")
        return None
    opened = None if encoder is None else _wrap_module(encoder, shape, options.resolution)
    backbone = opened or open_named(options)
    if backbone is None:
        return None
    if backbone.recipe.get("channels") == 1 and shape[0] == 3:
        raise OptionError(f"{backbone.name} is for grayscale images; these have colors")
    if options.resolution is not None:
        preprocessing = replace(backbone.preprocessing, resolution=options.resolution)
        backbone = replace(backbone, preprocessing=preprocessing)
    side = backbone.preprocessing.resolution
    if side is not None and shape[1] != shape[2]:
        raise OptionError(
            f"{backbone.name} needs square images of {side} pixels, not {shape[2]} x {shape[1]}; "
            f"--size {side} makes a folder's images square"
        )
    return backbone


def open_named(options: TrainOptions) -> Backbone | None:
    """Return the pretrained encoder that the options name, for any images; None without one."""
    name, resolution = options.network or "", options.resolution
    weights = None if options.weights is None else Path(options.weights).expanduser()
    if name.startswith(PYTHON):
        raise OptionError(f"this run has a custom encoder, {name}: pass it again as encoder=...")
    if name.startswith("hf:"):
        if weights is not None:
            raise OptionError(
                "--weights is for networks of daso and timm; a transformers model is a folder"
            )
        opened = open_transformers(name.removeprefix("hf:"), None, resolution)
        return replace(opened, name=name)
    if name.startswith("timm:"):
        return open_timm(name.removeprefix("timm:"), resolution, weights)
    if is_folder(name):
        return _open_folder(Path(name).expanduser(), resolution)
    if weights is not None:
        if not name:
            raise OptionError("--weights needs their network: --network resnet50, for example")
        return open_weights(name, weights)
    if options.freeze:
        needed = "--network hf:NAME, timm:NAME or a folder, or --weights FILE"
        raise OptionError(f"--freeze needs a pretrained network: {needed}")
    return None


def prepare_backbone(
    options: TrainOptions,
    data: TrainingData,
    encoder: nn.Module | None = None,
    folder: Path | None = None,
) -> Backbone | None:
    """Return the pretrained encoder of a run with its complete preprocessing; None if it has none.

    Args:
        data: images; their mean and standard deviation are used if the encoder has none.
        folder: folder of a run that is resumed; the encoder in it is used.
    """
    if folder is not None and (folder / FOLDER / ABOUT).is_file():
        return load_backbone(folder / FOLDER, lambda about: build_module(about, encoder))
    backbone = open_backbone(options, data.shape, encoder)
    if backbone is None:
        return None
    own = backbone.preprocessing
    complete = replace(own, mean=own.mean or data.mean, std=own.std or data.std)
    return replace(backbone, preprocessing=complete)


def is_pretrained(options: TrainOptions) -> bool:
    """Return whether the options name a pretrained encoder."""
    name = options.network or ""
    by_name = name.startswith(("hf:", "timm:", PYTHON))
    return options.weights is not None or by_name or is_folder(name)


def is_folder(name: str) -> bool:
    """Whether a network's name means a folder; one that is called like a network does not."""
    return "/" in name or (not is_builtin(name) and Path(name or "?").expanduser().is_dir())


class Resolution(NamedTuple):
    """A chosen side and the encoder's own side, in pixels."""

    chosen: int
    own: int


def choose_resolution(options: TrainOptions, side: int) -> Resolution | None:
    """Return a side, smaller than the encoder's own, that saves time on small images.

    Returns None if the encoder's own side is at most four times *side*, that of the images, a
    resolution is given, the encoder is unknown, or it accepts no other side.
    """
    name = options.network or ""
    if options.resolution is not None:
        return None
    if name.startswith("timm:"):
        sides = timm_side(name.removeprefix("timm:"))
    elif name.startswith("hf:"):
        sides = transformers_side(name.removeprefix("hf:"), None)
    elif is_folder(name):
        sides = transformers_side(name, Path(name).expanduser())
    else:
        return None
    if sides is None:
        return None
    own, multiple = sides
    chosen = multiple * math.ceil(ENLARGED * side / multiple)
    return Resolution(chosen, own) if chosen < own else None


def _wrap_module(encoder: nn.Module, shape: Sequence[int], resolution: int | None) -> Backbone:
    """Wrap a module that has ``preprocessing``, or ``pretrained_cfg`` as models of timm do."""
    module = copy.deepcopy(encoder)
    preprocessing: Any = getattr(encoder, "preprocessing", None)
    if not isinstance(preprocessing, Preprocessing):
        about: Any = getattr(encoder, "pretrained_cfg", None)
        preprocessing = (
            timm_preprocessing(about, resolution) if isinstance(about, Mapping) else Preprocessing()
        )
    channels, height, width = shape
    if side := resolution or preprocessing.resolution:
        channels, height, width = len(preprocessing.mean or ()) or channels, side, side
    wrapped = ModuleEncoder(module, measure(module, channels, height, width)).eval()
    name = f"{PYTHON}{type(encoder).__name__}"
    recipe = {"class": type(encoder).__qualname__}
    return Backbone(name, "python", wrapped, preprocessing, recipe)


def _open_folder(folder: Path, resolution: int | None) -> Backbone:
    """Open the folder of a transformers model, of a run, or a run's ``backbone/``."""
    if not folder.is_dir():
        raise OptionError(f"no such folder: {folder}; models of a hub are hf:NAME or timm:NAME")
    if (folder / ABOUT).is_file():
        return load_backbone(folder, build_module)
    try:
        config = read_json(folder / "config.json")
    except RunError as error:
        raise OptionError(
            f"{folder} holds no network, neither a run nor config.json and safetensors"
        ) from error
    if "method" in config and "train" in config:
        return _open_run(folder)
    return open_transformers(str(folder), folder, resolution)


def _open_run(folder: Path) -> Backbone:
    """Open the encoder of a run's moving average; images are resized to its training size."""
    data = read_json(folder / "data.json")
    options = RunConfig.read(folder).train
    if data.get("embedding"):
        raise OptionError(
            f"{folder} was trained on embeddings; use its backbone: "
            f"--network {typed(folder / FOLDER)}"
        )
    if len(data["image_shape"]) == 1:
        raise OptionError(f"{folder} was trained on vectors; it has no encoder of images")
    average = load_checkpoint(folder / "checkpoints", lambda message: None).average()
    mean, std = (tuple(average[name].flatten().tolist()) for name in ("mean", "std"))
    channels, height, width = data["image_shape"]
    about: dict[str, Any]
    if data.get("backbone"):
        about = data["backbone"]
        used = about["preprocessing"]
        preprocessing = Preprocessing(mean, std, used["resolution"], used["interpolation"])
    else:
        size = options.resolution or max(height, width)
        recipe = {"network": options.network, "channels": channels, "size": size}
        about = {"kind": "daso", "recipe": recipe}
        preprocessing = Preprocessing(mean, std, size if height == width else None)
    module = build_module(about)
    state = without_prefix(average, "encoder.")
    load_strictly(module, state, f"the checkpoint of {folder} does not fit its configuration")
    return Backbone(str(folder), about["kind"], module.eval(), preprocessing, about["recipe"])


def build_module(about: Mapping[str, Any], given: nn.Module | None = None) -> Encoder:
    """Build the module of a backbone from the values of ``Backbone.describe``; weights are random.

    Raises:
        OptionError: the custom encoder, *given*, is missing, or the kind is unknown.
    """
    kind, recipe = about["kind"], about["recipe"]
    if kind == "python":
        require_given({"backbone": about}, given)
        assert given is not None
        return ModuleEncoder(copy.deepcopy(given), about["dim"])
    builders = {"daso": build_own, "transformers": build_transformers, "timm": build_timm}
    if kind not in builders:
        raise OptionError(f"unknown kind of backbone: {kind!r}")
    return builders[kind](recipe)


def require_given(data: Mapping[str, Any], given: nn.Module | None) -> None:
    """Raise an ``OptionError`` if a run, by its ``data.json``, needs a custom encoder."""
    about = data.get("backbone") or {}
    if about.get("kind") == "python" and given is None:
        name = about["recipe"]["class"]
        raise OptionError(f"the encoder came from Python ({name}): pass encoder=, of this class")


def refuse_other(folder: Path, backbone: Backbone | None) -> None:
    """Raise a ``RunError`` if a run's pretrained encoder is not the one in its ``data.json``."""
    saved = (read_json(folder / "data.json").get("backbone") or {}).get("weights")
    current = None if backbone is None else checksum(backbone.module.state_dict())
    if saved != current:
        raise RunError(
            f"the pretrained network of {folder} has changed: checksum {saved}, now {current}"
        )


def with_kept_backbone(
    folder: Path, data: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Add the frozen backbone to the state of a network on embeddings; other states stay unchanged.

    Raises:
        RunError: the weights of the backbone are missing or damaged.
    """
    if not data.get("embedding"):
        return dict(state)
    path, about = folder / FOLDER / WEIGHTS, data["backbone"]
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read the frozen backbone of the run: {path}: {error}") from error
    if checksum(weights) != about["weights"]:
        raise RunError(f"{path} is damaged, or of another run: wrong checksum")
    whole = {f"encoder.backbone.{name}": tensor for name, tensor in weights.items()}
    for name, tensor in state.items():
        whole[name.replace("encoder.", "encoder.top.", 1)] = tensor
    for name in ("mean", "std"):
        whole[name] = state[name].new_tensor(about["preprocessing"][name]).view(1, -1, 1, 1)
    return whole
