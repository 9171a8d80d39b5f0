"""A backbone: an encoder with weights, its preprocessing, and a recipe to rebuild it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from daso.errors import OptionError, RunError, first_line, refusal
from daso.files import leads_somewhere, make_folder, read_json, save_json, write_atomically
from daso.nets.encoders import Encoder
from daso.nets.network import Interpolation

Kind = Literal["transformers", "timm", "daso", "python"]

ABOUT = "backbone.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of uint8 images for an encoder.

    Attributes:
        mean, std: per channel, of images in [0, 1]; None: those of the data.
        resolution: side in pixels to which images are resized; None: they keep their size.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resolution: int | None = None
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Backbone:
    """An encoder with weights.

    Attributes:
        module: maps normalized images, float (B, C, H, W), to features, float (B, dim); has
            ``dim``. Training copies it.
        recipe: JSON values that rebuild the module without its weights.
    """

    name: str
    kind: Kind
    module: Encoder
    preprocessing: Preprocessing
    recipe: Mapping[str, Any]

    @property
    def given(self) -> nn.Module | None:
        """The wrapped custom module, if any."""
        return self.module.module if isinstance(self.module, ModuleEncoder) else None

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, and their checksum, as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "dim": self.module.dim,
            "preprocessing": json.loads(json.dumps(asdict(self.preprocessing))),
            "recipe": dict(self.recipe),
            "weights": checksum(self.module.state_dict()),
        }

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and, last, ``backbone.json``, or raise a ``RunError``."""
        make_folder(folder)
        tensors = self.module.state_dict().items()
        state = {name: value.cpu().clone().contiguous() for name, value in tensors}
        write_atomically(folder / WEIGHTS, safetensors.torch.save(state))
        save_json(folder / ABOUT, self.describe())


def checksum(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that ``Backbone.describe`` wrote.

    Raises:
        TypeError, ValueError: the values are invalid.
    """
    stored = (values["mean"], values["std"])
    mean, std = (None if one is None else tuple(map(float, one)) for one in stored)
    if values["interpolation"] not in get_args(Interpolation):
        raise ValueError(f"unknown interpolation {values['interpolation']!r}")
    return Preprocessing(mean, std, values["resolution"], values["interpolation"])


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raise an ``OptionError`` if that fails."""
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".tar", ".pkl"):
        raise OptionError(
            f"{path} looks like a pickle, which can run code when it is opened; daso reads "
            f"safetensors only. If you trust it, convert it: python -m daso.nets.convert {path}"
        )
    try:
        leads_somewhere(path)  # safetensors calls whatever it cannot open "no such file"
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        reason = refusal(error) if isinstance(error, OSError) else ""
        raise OptionError(f"cannot read weights from {reason or f'{path}: {error}'}") from error


def load_backbone(folder: Path, build: Callable[[Mapping[str, Any]], Encoder]) -> Backbone:
    """Read the files of ``Backbone.save``; *build* gets the values of ``Backbone.describe``.

    Raises:
        RunError: a file is missing or damaged, or does not fit the module.
    """
    about = read_json(folder / ABOUT)
    try:
        module = build(about)
        module.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        preprocessing = read_preprocessing(about["preprocessing"])
        if checksum(module.state_dict()) != about["weights"]:
            raise ValueError("the weights have another checksum")
        name, kind, recipe = about["name"], about["kind"], about["recipe"]
    except (OptionError, RunError):
        raise
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{folder}: the backbone cannot be read: {first_line(error)}") from error
    return Backbone(name, kind, module.eval(), preprocessing, recipe)


class ModuleEncoder(Encoder):
    """A custom module that maps normalized images (B, C, H, W) to features, float (B, D)."""

    def __init__(self, module: nn.Module, dim: int) -> None:
        super().__init__()
        self.module, self.dim = module, dim

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.module(x)
        return features


def measure(module: nn.Module, channels: int, height: int, width: int) -> int:
    """Return the length of a module's features; put the module into evaluation mode.

    Parameters that the features do not depend on (a mask token, an unused pooling layer) stop
    requiring gradients.

    Raises:
        OptionError: the module fails, or does not return floats of shape (B, D).
    """
    module.eval()
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    images = torch.linspace(-1, 1, 2 * channels * height * width, device=device)
    what = f"{type(module).__name__} on images (2, {channels}, {height}, {width})"
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            features: Any = module(images.view(2, channels, height, width))
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise OptionError(f"{what} fails: {first_line(error)}") from error
        shape = tuple(getattr(features, "shape", ())) or type(features).__name__
        if len(shape) != 2 or shape[0] != 2:
            raise OptionError(f"{what} must return features of shape (2, D), returned {shape}")
        if not features.is_floating_point():
            raise OptionError(f"{what} must return floats, returned {features.dtype}")
        learning = [p for p in module.parameters() if p.requires_grad]
        if learning and features.requires_grad:
            total = features.sum()
            gradients: Any = torch.autograd.grad(total, learning, allow_unused=True)
            for parameter, gradient in zip(learning, gradients, strict=True):
                if gradient is None:
                    parameter.requires_grad_(False)
    return int(features.shape[1])
