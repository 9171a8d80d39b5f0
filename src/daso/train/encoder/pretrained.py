"""Pretrained encoders of a run: found by what the options say, kept in the run folder, built again from it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from daso.data.training_data import TrainingData
from daso.errors import OptionError, RunError
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
from daso.nets.pretrained.huggingface import build_transformers, open_transformers
from daso.nets.pretrained.own_weights import build_own, load_strictly, open_weights
from daso.nets.pretrained.timm_models import build_timm, open_timm, timm_preprocessing
from daso.train.config import RunConfig
from daso.train.folder.checkpoint import load_checkpoint
from daso.train.options import TrainOptions

FOLDER = "backbone"
"""Of a run folder, with the pretrained encoder as it was at the start."""
PYTHON = "python:"
"""Begins the network's name of a run that was given its encoder from Python."""


def open_backbone(
    options: TrainOptions, shape: Sequence[int], encoder: nn.Module | None = None
) -> Backbone | None:
    """Return the pretrained encoder that the options ask for; None if they ask for none.

    Args:
        options: ``network``, ``weights`` and ``resolution``.
        shape: of an image, (C, H, W).
        encoder: a module of one's own, which goes before the options' network.

    Raises:
        OptionError: it cannot be had, or does not go with the images or the options; the message says why.
        MissingDependencyError: the library that it needs is not installed.
    """
    name, resolution = options.network or "", options.resolution
    weights = None if options.weights is None else Path(options.weights).expanduser()
    if len(shape) == 1:
        if encoder is not None or options.freeze or is_pretrained(options):
            raise OptionError("pretrained encoders are of images; the data are vectors already")
        return None
    if encoder is not None:
        backbone = _own_module(encoder, shape, resolution)
    elif name.startswith(PYTHON):
        raise OptionError(
            f"this run was given its encoder from Python, {name}: give it again, encoder=..."
        )
    elif name.startswith("hf:"):
        if weights is not None:
            raise OptionError(
                "--weights is for networks of ours and timm's; a transformers model is a folder"
            )
        opened = open_transformers(name.removeprefix("hf:"), None, resolution)
        backbone = dataclasses.replace(opened, name=name)
    elif name.startswith("timm:"):
        backbone = open_timm(name.removeprefix("timm:"), resolution, weights)
    elif _is_folder(name):
        backbone = _open_folder(Path(name).expanduser(), resolution)
    elif weights is not None:
        backbone = open_weights(_named(options), weights)
    elif options.freeze:
        raise OptionError(
            "--freeze needs a pretrained network: --network hf:NAME, timm:NAME or a folder, or --weights FILE"
        )
    else:
        return None
    _check_channels(backbone, shape)
    if resolution is not None:
        preprocessing = dataclasses.replace(backbone.preprocessing, resolution=resolution)
        backbone = dataclasses.replace(backbone, preprocessing=preprocessing)
    if backbone.preprocessing.resolution is not None and shape[1] != shape[2]:
        raise OptionError(
            f"{backbone.name} takes square images of {backbone.preprocessing.resolution} pixels, these are "
            f"{shape[1]} x {shape[2]}; --size {backbone.preprocessing.resolution} makes a folder's images square"
        )
    return backbone


def prepare_backbone(
    options: TrainOptions,
    data: TrainingData,
    encoder: nn.Module | None = None,
    folder: Path | None = None,
) -> Backbone | None:
    """Return the pretrained encoder of a run, its preprocessing complete; None if it has none.

    Args:
        options: see ``open_backbone``.
        data: images, whose mean and standard deviation are taken where the encoder has none.
        encoder: a module of one's own.
        folder: of the run where it is resumed: what it keeps is taken.

    Raises:
        DasoError: see ``open_backbone`` and ``kept_backbone``.
    """
    if folder is not None and (kept := kept_backbone(folder, encoder)) is not None:
        return kept
    backbone = open_backbone(options, data.shape, encoder)
    if backbone is None:
        return None
    given = backbone.preprocessing
    complete = dataclasses.replace(given, mean=given.mean or data.mean, std=given.std or data.std)
    return dataclasses.replace(backbone, preprocessing=complete)


def is_pretrained(options: TrainOptions) -> bool:
    """Tell whether the options ask for a pretrained encoder."""
    name = options.network or ""
    return (
        options.weights is not None or name.startswith(("hf:", "timm:", PYTHON)) or _is_folder(name)
    )


def _is_folder(name: str) -> bool:
    return "/" in name or Path(name or "?").expanduser().is_dir()


def _named(options: TrainOptions) -> str:
    if options.network is None:
        raise OptionError(
            "--weights needs the network that they are of: --network resnet50, for example"
        )
    return options.network


def _own_module(encoder: nn.Module, shape: Sequence[int], resolution: int | None) -> Backbone:
    """Make a backbone of a module, with its own ``preprocessing`` or, as models of timm have, ``pretrained_cfg``."""
    module = copy.deepcopy(encoder)
    given: Any = getattr(encoder, "preprocessing", None)
    if not isinstance(given, Preprocessing):
        about: Any = getattr(encoder, "pretrained_cfg", None)
        given = (
            timm_preprocessing(about, resolution) if isinstance(about, Mapping) else Preprocessing()
        )
    side = resolution or given.resolution
    channels, height, width = (len(given.mean or ()) or shape[0], side, side) if side else shape
    wrapped = ModuleEncoder(module, measure(module, channels, height, width))
    name = f"{PYTHON}{type(encoder).__name__}"
    return Backbone(name, "python", wrapped.eval(), given, {"class": type(encoder).__qualname__})


def _open_folder(folder: Path, resolution: int | None) -> Backbone:
    """Open a folder: of a transformers model, of a run of ours, or a run's ``backbone/``."""
    if not folder.is_dir():
        raise OptionError(
            f"there is no folder {folder}; models of the hub are called hf:NAME or timm:NAME"
        )
    if (folder / ABOUT).is_file():
        return load_backbone(folder, build_module)
    try:
        config = read_json(folder / "config.json")
    except RunError as error:
        raise OptionError(
            f"{folder} holds no network: neither a transformers model (config.json and safetensors) nor a run"
        ) from error
    if "method" in config and "train" in config:
        return _open_run(folder)
    return open_transformers(str(folder), folder, resolution)


def _open_run(folder: Path) -> Backbone:
    """Take the encoder of a run's moving average; images are resized to what it was trained on."""
    data = read_json(folder / "data.json")
    options = RunConfig.read(folder).train
    if data.get("embedding"):
        raise OptionError(
            f"{folder} was trained on embeddings; give its backbone: --network {folder / FOLDER}"
        )
    if len(data["image_shape"]) == 1:
        raise OptionError(f"{folder} was trained on vectors; it has no encoder of images")
    checkpoint = load_checkpoint(folder / "checkpoints", _ignore)
    start = "average.encoder."
    state = {n.removeprefix(start): t for n, t in checkpoint.tensors.items() if n.startswith(start)}
    mean, std = (
        tuple(checkpoint.tensors[f"average.{n}"].flatten().tolist()) for n in ("mean", "std")
    )
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
    load_strictly(module, state, f"the checkpoint of {folder} does not fit its configuration")
    return Backbone(str(folder), about["kind"], module.eval(), preprocessing, about["recipe"])


def _ignore(message: str) -> None:
    """Drop a message: an older whole checkpoint will do."""


def _check_channels(backbone: Backbone, shape: Sequence[int]) -> None:
    """Raise an ``OptionError`` if an encoder of grey images shall see colour; grey images are shown as colour."""
    if backbone.recipe.get("channels") == 1 and shape[0] == 3:
        raise OptionError(f"{backbone.name} is of grey images, these have colours")


def build_module(about: Mapping[str, Any], given: nn.Module | None = None) -> nn.Module:
    """Build the module of a backbone from what ``Backbone.describe`` returned; its weights are random.

    Args:
        about: of the backbone.
        given: the encoder of one's own that it was; for others it is of no use.

    Raises:
        OptionError: the encoder of one's own is not given, or the kind is unknown.
        MissingDependencyError: the library that it needs is not installed.
    """
    kind, recipe = about["kind"], about["recipe"]
    if kind == "python":
        require_given({"backbone": about}, given)
        assert given is not None
        return ModuleEncoder(copy.deepcopy(given), about["dim"])
    if kind == "daso":
        return build_own(recipe)
    if kind == "transformers":
        return build_transformers(recipe)
    if kind == "timm":
        return build_timm(recipe)
    raise OptionError(f"a backbone of an unknown kind: {kind!r}")


def require_given(data: Mapping[str, Any], given: nn.Module | None) -> None:
    """Raise an ``OptionError`` if a run, by its ``data.json``, was given an encoder from Python and this one is not."""
    about = data.get("backbone") or {}
    if about.get("kind") == "python" and given is None:
        raise OptionError(
            f"the encoder came from Python ({about['recipe']['class']}): give a module of this class again, "
            f"load_model(..., encoder=...)"
        )


def kept_backbone(folder: Path, given: nn.Module | None = None) -> Backbone | None:
    """Return the pretrained encoder that a run folder keeps; None if there is none.

    Raises:
        OptionError, RunError: see ``load_backbone`` and ``build_module``.
    """
    place = folder / FOLDER
    if not (place / ABOUT).is_file():
        return None
    return load_backbone(place, lambda about: build_module(about, given))


def refuse_other(folder: Path, data: Mapping[str, Any], backbone: Backbone | None) -> None:
    """Raise a ``RunError`` if a run's pretrained encoder, by its ``data.json``, is not the one that was found now."""
    saved = (data.get("backbone") or {}).get("weights")
    found = None if backbone is None else checksum(backbone.module.state_dict())
    if saved != found:
        raise RunError(
            f"the pretrained network of {folder} has changed: its checksum was {saved}, now it is {found}"
        )


def with_kept_backbone(
    folder: Path, data: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a whole network, images in, where a run's checkpoint holds what came after its embeddings.

    Args:
        folder: of the run.
        data: its ``data.json``.
        state: of the network of its checkpoint; of other runs it is returned as it is.

    Raises:
        RunError: the weights of its backbone are missing or damaged.
    """
    if not data.get("embedding"):
        return dict(state)
    path, about = folder / FOLDER / WEIGHTS, data["backbone"]
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the weights of the run's frozen backbone cannot be read: {path}: {error}"
        ) from error
    if checksum(weights) != about["weights"]:
        raise RunError(f"{path} is damaged, or of another run: its checksum does not fit")
    heads = {name: t for name, t in state.items() if not name.startswith("encoder.")}
    top = {
        f"encoder.top.{n.removeprefix('encoder.')}": t
        for n, t in state.items()
        if n.startswith("encoder.")
    }
    frozen = {f"encoder.backbone.{name}": t for name, t in weights.items()}
    channels = {
        name: heads[name].new_tensor(about["preprocessing"][name]).view(1, -1, 1, 1)
        for name in ("mean", "std")
    }
    return {**heads, **top, **frozen, **channels}
