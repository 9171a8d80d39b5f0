"""A classifier from a run folder or from a file that was exported; no code in it is ever run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from daso.balance import balanced_by
from daso.errors import MissingDependencyError, OptionError, RunError
from daso.evaluate.predict import predict_logits
from daso.export.classifier import Classifier
from daso.export.facts import ModelFacts
from daso.files import read_json
from daso.nets.network import Network, Precision
from daso.train.calibration import read_calibration
from daso.train.config import RunConfig
from daso.train.model import Model, load_model, rebuild_model
from daso.train.step.state import choose_device

Array = npt.NDArray[Any]


def _warn(message: str) -> None:
    print(f"daso: {message}", file=sys.stderr)


def load(
    path: str | PathLike[str],
    device: str = "auto",
    *,
    precision: Precision | None = None,
    encoder: nn.Module | None = None,
    warn: Callable[[str], None] = _warn,
) -> Classifier:
    """Load a trained classifier.

    Args:
        path: a run folder, or an ``.onnx`` or ``.safetensors`` file of ``daso export``.
        device: cpu, cuda, mps; auto takes the first accelerator there is. An ``.onnx`` file runs on the CPU, or with
            onnxruntime's GPU build on cuda.
        precision: of the network: float32 or bfloat16; None: a run folder answers in that of its training, an
            exported file in float32. An ``.onnx`` file knows float32 only.
        encoder: of a run that was given an encoder from Python, a module like it; its weights are the run's.
        warn: is told of damaged checkpoints and of a calibration that is missing.

    Raises:
        RunError: it is no run folder and no exported file, or damaged.
        OptionError: the device is not there, the precision is unknown, or the file is of a kind that can hold code.
        MissingDependencyError: onnxruntime is not installed.
    """
    path = Path(path)
    if precision not in (None, "float32", "bfloat16"):
        raise OptionError(f"unknown precision {precision!r}; valid: float32, bfloat16")
    if path.suffix == ".onnx" and path.is_file():
        if precision == "bfloat16":
            raise OptionError(f"{path}: an .onnx file computes in float32, not in bfloat16")
        return _from_onnx(path, device)
    if path.suffix == ".safetensors" and path.is_file():
        model, facts = load_safetensors(path, choose_device(device), encoder)
        model.network.precision = precision or model.network.precision
        return Classifier(network_answer(model.network, facts.temperature), facts)
    if path.suffix in (".pt2", ".pt", ".pth", ".pkl", ".pickle", ".ckpt") and path.is_file():
        raise OptionError(
            f"{path}: files of this kind can hold code that runs when they are loaded, and daso loads none. "
            f"'torch.export.load' reads a .pt2 that you trust; daso.load takes run folders, .onnx and .safetensors"
        )
    if not path.is_dir():
        what = (
            "is neither a run folder nor an .onnx or .safetensors file"
            if path.exists()
            else "does not exist"
        )
        raise RunError(f"{path} {what}")
    model, facts = load_run(path, choose_device(device), warn, encoder)
    model.network.precision = precision or model.network.precision
    if facts.calibration_note:
        warn(f"probabilities are not calibrated: {facts.calibration_note}")
    return Classifier(network_answer(model.network, facts.temperature), facts)


def load_run(
    folder: Path,
    device: torch.device,
    warn: Callable[[str], None],
    encoder: nn.Module | None = None,
) -> tuple[Model, ModelFacts]:
    """Load the model of a run folder, and what is known of it; see ``load``."""
    model = load_model(folder, device, warn, encoder)
    calibration = read_calibration(folder, model.step)
    config = model.config
    facts = ModelFacts(
        class_names=model.class_names,
        labeled_counts=model.labeled_counts,
        input_shape=model.image_shape,
        temperature=calibration.temperature,
        calibration_note=calibration.note,
        balanced_by=balanced_by(config.to_dict(), read_json(folder / "data.json")),
        method="+".join(map(without_folders, config.method.split("+"))),
        step=model.step,
        confusion=calibration.confusion,
        provenance=_provenance(folder, config),
    )
    return model, facts


def network_answer(network: Network, temperature: float) -> Callable[[Array], Array]:
    """Return a function from inputs to the calibrated probabilities of a network."""

    def answer(inputs: Array) -> Array:
        logits = predict_logits(
            network, torch.from_numpy(np.require(inputs, requirements=["C", "W"]))
        )
        return np.asarray((logits.double() / temperature).softmax(1).numpy())

    return answer


def without_folders(name: str) -> str:
    """Return a name as it is, of a path only its last part: the rest may say more than its owner wants."""
    return name if name.startswith(("hf:", "timm:", "python:")) else Path(name).name


def _provenance(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Return where a model comes from, as JSON values."""
    environment, data = read_json(folder / "environment.json"), read_json(folder / "data.json")
    return {
        **{key: environment.get(key) for key in ("daso", "commit", "torch", "python")},
        "data": without_folders(config.source),
        "split_fingerprint": data.get("split_fingerprint"),
        "images_fingerprints": data.get("images_fingerprints"),
        "network": without_folders(config.train.network or ""),
        "seed": config.train.seed,
    }


def load_safetensors(
    path: Path, device: torch.device, encoder: nn.Module | None = None
) -> tuple[Model, ModelFacts]:
    """Load the model that ``daso export --format safetensors`` wrote; see ``load``."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    facts = ModelFacts.from_metadata(metadata, str(path))
    try:
        build = json.loads(metadata["network"])
        config = RunConfig.from_dict(build["config"], str(path))
        data = {
            **build,
            "class_names": facts.class_names,
            "labeled_counts": facts.labeled_counts,
            "image_shape": facts.input_shape,
        }
        output = str(build["output"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} was not exported by daso: {error!r}") from error
    return rebuild_model(config, data, state, output, facts.step, device, str(path), encoder), facts


def _from_onnx(path: Path, device: str) -> Classifier:
    session = onnx_session(path, device)
    facts = ModelFacts.from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    name = session.get_inputs()[0].name

    def answer(inputs: Array) -> Array:
        return np.asarray(session.run(None, {name: np.ascontiguousarray(inputs)})[0])

    return Classifier(answer, facts)


def onnx_session(path: Path, device: str = "cpu") -> Any:
    """Open an ONNX file with onnxruntime.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        OptionError: the device is not one that it has.
        RunError: the file is no ONNX model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: an ONNX file needs onnxruntime: pip install 'daso[onnx]'"
        ) from error
    kinds = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    kind = "cpu" if device == "auto" else device
    if kinds.get(kind) not in onnxruntime.get_available_providers():
        raise OptionError(f"this onnxruntime does not run on {device!r}")
    try:
        return onnxruntime.InferenceSession(str(path), providers=[kinds[kind]])
    # onnxruntime raises classes of its own that it does not export.
    except Exception as error:
        raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
