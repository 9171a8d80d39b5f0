"""Encoders of the transformers library, by name or from a folder, without torchvision."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import MissingDependencyError, OptionError, first_line, import_extra
from daso.nets.backbone import Backbone, Preprocessing, measure
from daso.nets.encoders import Encoder
from daso.nets.network import Interpolation

FIRST_TOKEN = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit_msn")
"""Model types whose features are the class token; their poolers are often untrained."""
POOLED = (
    "beit", "clip_vision_model", "convnext", "convnextv2", "data2vec-vision", "dinov3_convnext",
    "efficientnet", "focalnet", "mobilenet_v1", "mobilenet_v2", "regnet", "resnet",
    "siglip_vision_model", "siglip2_vision_model", "swin", "swinv2",
)  # fmt: skip
"""Model types with a trained pooling layer; others are averaged over all tokens or pixels."""
ANY_SIDE = (
    *FIRST_TOKEN, "clip", "clip_vision_model", "convnext", "convnextv2", "dinov3_convnext",
    "efficientnet", "mobilenet_v1", "mobilenet_v2", "regnet", "resnet",
)  # fmt: skip
"""Model types that accept images of any side, some by interpolated position embeddings."""
STRIDE = 16
"""For encoders without patches, the side of images should be a multiple of this."""
REFUSED = {"vit_mae": "it masks patches at random; use an encoder saved as ViT"}

NEEDS = "hf:NAME and folders of models need"
HUB_TIMEOUT_SECONDS = 10.0
"""Timeout of the hub's first answer."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL_SIDE = 224
_INTERPOLATIONS: dict[int, Interpolation] = {1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers; Lanczos, which torch lacks, becomes bicubic."""


class TransformersEncoder(Encoder):
    """The vision part of a transformers model with the pooling of its type.

    Args:
        model: model from ``AutoModel``; its vision part is used.
        side: side of the images in pixels; position embeddings of another size are interpolated.

    Raises:
        OptionError: the model type or the size of the images is unsupported.
    """

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model = _vision(model)
        config = self.model.config
        self.model_type = str(config.model_type)
        if self.model_type in REFUSED:
            reason = REFUSED[self.model_type]
            raise OptionError(f"models of type {self.model_type!r} are unsupported: {reason}")
        self._arguments: dict[str, Any] = {}
        parameters = inspect.signature(inspect.unwrap(type(self.model).forward)).parameters
        if "pixel_values" not in parameters:
            raise OptionError(f"models of type {self.model_type!r} do not take images")
        if "interpolate_pos_encoding" in parameters and getattr(config, "image_size", side) != side:
            self._arguments["interpolate_pos_encoding"] = True
        if self.model_type in FIRST_TOKEN and hasattr(self.model, "pooler"):
            self.model.pooler = None
        self.channels = int(getattr(config, "num_channels", 3))
        self.dim = measure(self, self.channels, side, side)

    def forward(self, x: Tensor) -> Tensor:
        output = self.model(pixel_values=x, **self._arguments)
        if self.model_type in FIRST_TOKEN:
            first: Tensor = output.last_hidden_state[:, 0]
            return first
        if self.model_type in POOLED:
            pooled: Tensor = output.pooler_output.flatten(1)
            return pooled
        hidden: Tensor = output.last_hidden_state
        return hidden.mean(1) if hidden.dim() == 3 else hidden.flatten(2).mean(2)


def open_transformers(name: str, folder: Path | None, resolution: int | None) -> Backbone:
    """Load the vision part of a pretrained model.

    Args:
        folder: has ``config.json`` and safetensors; None: the hub or its cache.
        resolution: side of the images in pixels; None: the model's own.

    Raises:
        MissingDependencyError: transformers is not installed.
        OptionError: the model cannot be loaded, lacks safetensors or weights, or takes no images.
    """
    # The hub comes first: transformers takes seconds to import.
    where, local = (name, _is_cached(name)) if folder is None else (str(folder), True)
    if not local:
        _ask_hub(name, "--network FOLDER")
    transformers = _library()
    with _loading(name):
        model, loaded = transformers.AutoModel.from_pretrained(
            where,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=local,
            output_loading_info=True,
            dtype=torch.float32,
        )
    values = _read_processor(where, folder, local)
    preprocessing = from_processor(values, getattr(_vision(model).config, "image_size", None))
    side = resolution or preprocessing.resolution or USUAL_SIDE
    encoder = TransformersEncoder(model, side)
    _settle_missing(name, model, encoder, loaded["missing_keys"])
    preprocessing = dataclasses.replace(preprocessing, resolution=side)
    recipe = {
        "config": {n: v for n, v in encoder.model.config.to_dict().items() if n != "_name_or_path"},
        "side": side,
        "channels": encoder.channels,
        "transformers": transformers.__version__,
    }
    plain = json.loads(json.dumps(recipe, default=str))
    return Backbone(name, "transformers", encoder, preprocessing, plain)


def transformers_side(name: str, folder: Path | None) -> tuple[int, int] | None:
    """Return a model's own side in pixels and the divisor of other sides.

    Returns None if the model accepts no other side, or the folder has no transformers model.

    Raises:
        OptionError: a file of the model cannot be fetched or read.
        MissingDependencyError: huggingface-hub is not installed.
    """
    local = None if folder is None else folder / "config.json"
    path = local or fetch(name, "config.json", "--network FOLDER")
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
        kind, config = config["model_type"], config.get("vision_config") or config
        size, patch = config.get("image_size"), config.get("patch_size")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not a transformers model; loading it reports the error
    if kind not in ANY_SIDE:
        return None
    side = from_processor(_read_processor(name, folder, local=True), size).resolution
    has_patches = kind in (*FIRST_TOKEN, "clip", "clip_vision_model")
    known = has_patches and isinstance(patch, int) and patch > 0
    return None if side is None else (side, patch if known else STRIDE)


def build_transformers(recipe: Mapping[str, Any]) -> Encoder:
    """Build the encoder of a recipe of ``open_transformers`` with random weights.

    Raises:
        MissingDependencyError: transformers is not installed.
        OptionError: the installed transformers cannot build it.
    """
    transformers = _library()
    values = {name: value for name, value in recipe["config"].items() if name != "model_type"}
    try:
        config = transformers.AutoConfig.for_model(recipe["config"]["model_type"], **values)
        model = transformers.AutoModel.from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            f"transformers {transformers.__version__} cannot build this model, written with "
            f"{recipe['transformers']}: {error}"
        ) from error
    return TransformersEncoder(model, recipe["side"])


def from_processor(values: Mapping[str, Any], image_size: Any) -> Preprocessing:
    """Return the preprocessing of a model's ``preprocessor_config.json``.

    The whole square image is resized to the model's side. Some processors resize to a little more
    and crop the border; here nothing is cropped. Files without mean and deviation get ImageNet's.
    *image_size* is the side in the model's configuration, for files without one.

    Raises:
        OptionError: the preprocessing is unsupported.
    """
    if values.get("do_flip_channel_order"):
        raise OptionError("the model expects the channels blue, green, red, which is unsupported")
    crop = values.get("crop_size") if values.get("do_center_crop", "crop_size" in values) else None
    size = crop or values.get("size") or image_size or USUAL_SIDE
    if isinstance(size, Mapping):
        sides = (size.get(name) for name in ("height", "shortest_edge", "longest_edge"))
        size = next(filter(None, sides), USUAL_SIDE)
    if isinstance(size, list | tuple):
        size = size[-1]
    mean, std = (values.get("image_mean"), values.get("image_std"))
    if not values.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
    # The file's numbers are for images times a factor, mostly 1 / 255, and sometimes minus 1.
    rescale = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    factor = 255 * float(rescale)
    factor = 1.0 if math.isclose(factor, 1.0) else factor
    offset = 1.0 if values.get("rescale_offset") else 0.0
    resample = values.get("resample", 2)
    if resample not in _INTERPOLATIONS:
        raise OptionError(f"the model needs an unsupported method of resizing: {resample!r}")
    return Preprocessing(
        tuple((float(m) + offset) / factor for m in mean),
        tuple(float(s) / factor for s in std),
        int(size),
        _INTERPOLATIONS[resample],
    )


def _library() -> Any:
    transformers = import_extra("transformers", "hf", NEEDS)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _vision(model: nn.Module) -> Any:
    return getattr(model, "vision_model", model)


def _is_cached(name: str) -> bool:
    hub = import_extra("huggingface_hub", "hf", NEEDS)
    files = ("config.json", "model.safetensors", "model.safetensors.index.json")
    cached = [isinstance(hub.try_to_load_from_cache(name, file), str) for file in files]
    return cached[0] and any(cached[1:])


def fetch(name: str, file: str, instead: str) -> Path:
    """Return the path of a file of a hub repository; fetch it if it is not cached.

    *instead* is the option that takes a downloaded copy, for errors.

    Raises:
        OptionError: the file cannot be fetched.
        MissingDependencyError: huggingface-hub is not installed.
    """
    hub = import_extra("huggingface_hub", "hf", NEEDS)
    cached = hub.try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    _ask_hub(name, instead)
    with _loading(name):
        return Path(hub.hf_hub_download(name, file, etag_timeout=HUB_TIMEOUT_SECONDS))


def _ask_hub(name: str, instead: str) -> None:
    hub = import_extra("huggingface_hub", "hf", NEEDS)
    local = (
        "On a computer with network access, run "
        f"\"hf download {name} --include '*.json' '*.safetensors' --local-dir FOLDER\"; "
        f"then use {instead}"
    )
    try:
        found = hub.HfApi().model_info(name, timeout=HUB_TIMEOUT_SECONDS)
    except hub.errors.HFValidationError as error:
        raise OptionError(f"{name!r} is not a valid model name: {error}") from error
    except hub.errors.RepositoryNotFoundError as error:
        raise OptionError(
            f"the hub has no model {name!r}, or it requires a login (hf auth login): "
            f"{first_line(error)}"
        ) from error
    except Exception as error:
        # The exceptions of a missing network depend on the HTTP client of huggingface-hub.
        reason = f"the hub does not answer: {first_line(error)}"
        raise OptionError(f"{name!r} is not cached, and {reason}. {local}") from error
    files = [file.rfilename for file in found.siblings or []]
    if not any(file.endswith(".safetensors") for file in files):
        raise OptionError(
            f"{name!r} has its weights as pickles only, which can run code when they are opened; "
            "daso reads safetensors only"
        )


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        text = f"{name!r} needs more than transformers: {first_line(error)}"
        raise MissingDependencyError(text) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise OptionError(
            f"{name!r} cannot be loaded: {first_line(error)}. It must have config.json and "
            "safetensors of a model type in transformers; pickles and custom code are refused"
        ) from error


def _read_processor(where: str, folder: Path | None, local: bool) -> Mapping[str, Any]:
    """Read a model's ``preprocessor_config.json`` or ``processor_config.json``; {} without both."""
    keys = {"preprocessor_config.json": None, "processor_config.json": "image_processor"}
    for name, key in keys.items():
        if folder is not None:
            path = folder / name
        else:
            hub = import_extra("huggingface_hub", "hf", NEEDS)
            try:
                options = {"local_files_only": local, "etag_timeout": HUB_TIMEOUT_SECONDS}
                path = Path(hub.hf_hub_download(where, name, **options))
            except (OSError, hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError):
                continue
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_bytes())
            values = values if key is None else values.get(key, {})
            if not isinstance(values, dict):
                raise ValueError("it must hold an object")
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read: {error}") from error
        return values
    return {}


def _settle_missing(name: str, model: nn.Module, encoder: nn.Module, missing: Any) -> None:
    """Set tensors that the weights lack to zero; refuse them if the features depend on one."""
    learning = (p for p in encoder.parameters() if p.requires_grad)
    used = {id(tensor) for tensor in (*learning, *encoder.buffers())}
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    lacking = sorted(key for key in missing if key in own and id(own[key]) in used)
    if lacking:
        tensors = f"{len(lacking)} tensors that its features need, the first is {lacking[0]!r}"
        raise OptionError(f"the weights of {name!r} lack {tensors}")
    for key in missing:
        if key in own:
            own[key].data.zero_()
