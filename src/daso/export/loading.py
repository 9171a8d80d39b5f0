"""Load a classifier from a run folder or an exported file; no code in it is ever run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from daso.balance import balanced_by
from daso.errors import OptionError, RunError, check_choice, first_line, import_extra
from daso.evaluate.metrics import Array
from daso.evaluate.predict import predict_logits, represent_in_batches
from daso.export.classifier import Classifier
from daso.export.facts import ModelFacts
from daso.export.seal import is_intact
from daso.files import leads_somewhere, read_json
from daso.nets.network import Network, Precision
from daso.train.calibration import read_calibration
from daso.train.config import RunConfig
from daso.train.model import Model, load_model, rebuild_model
from daso.train.step.state import choose_device


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
        device: cpu, cuda, mps; auto takes the first accelerator. An ``.onnx`` file runs on the CPU,
            or on cuda with onnxruntime's GPU build.
        precision: of the network: float32 or bfloat16; None: that of the training for a run folder,
            float32 for an exported file. An ``.onnx`` file supports float32 only.
        encoder: for a run with an encoder from Python: a module like it; its weights are replaced
            by the run's.
        warn: called with a message about damaged checkpoints or a missing calibration.

    Raises:
        RunError: the path is neither a run folder nor an exported file, or is damaged.
        OptionError: the device is missing, the precision is unknown, or the kind of file can hold
            code.
        MissingDependencyError: onnxruntime is not installed.
    """
    path = Path(path)
    if precision is not None:
        check_choice("precision", precision, get_args(Precision))
    exists, is_file = leads_somewhere(path), path.is_file()
    if path.suffix == ".onnx" and is_file:
        if precision == "bfloat16":
            raise OptionError(f"{path}: an .onnx file computes in float32, not in bfloat16")
        if not is_intact(path):
            warn(f"{path} has changed since daso exported it: it is damaged, or was converted")
        classifier = open_onnx(path, device)
        _tell_calibration(classifier.facts, warn)
        return classifier
    if path.suffix in (".pt2", ".pt", ".pth", ".pkl", ".pickle", ".ckpt") and is_file:
        raise OptionError(
            f"{path}: files of this kind can hold code that runs when they are loaded, so daso "
            "loads none. Use a run folder, .onnx or .safetensors; 'torch.export.load' reads a .pt2 "
            "file that you trust"
        )
    if path.suffix == ".safetensors" and is_file:
        model, facts = load_safetensors(path, choose_device(device), encoder)
        _tell_calibration(facts, warn)
    elif path.is_dir():
        model, facts = load_run(path, choose_device(device), warn, encoder)
    elif exists:
        raise RunError(f"{path} is neither a run folder nor an .onnx or .safetensors file")
    else:
        raise RunError(f"{path} does not exist")
    model.network.precision = precision or model.network.precision
    return classifier_of(model.network, facts)


def _tell_calibration(facts: ModelFacts, warn: Callable[[str], None]) -> None:
    if facts.calibration_note:
        warn(f"probabilities are not calibrated: {facts.calibration_note}")


def load_run(
    folder: Path,
    device: torch.device,
    warn: Callable[[str], None],
    encoder: nn.Module | None = None,
) -> tuple[Model, ModelFacts]:
    """Load the model of a run folder and its facts; see ``load``."""
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
    _tell_calibration(facts, warn)
    return model, facts


def classifier_of(network: Network, facts: ModelFacts) -> Classifier:
    """Return the classifier of a network, with calibrated probabilities."""
    temperature = facts.temperature

    def tensor(inputs: Array) -> Tensor:
        return torch.from_numpy(np.require(inputs, requirements=["C", "W"]))

    def answer(inputs: Array) -> Array:
        logits = predict_logits(network, tensor(inputs)).double()
        return np.asarray((logits / temperature).softmax(1).numpy())

    def features(inputs: Array) -> Array:
        parts = list(represent_in_batches(network, tensor(inputs)))
        return torch.cat(parts).float().cpu().numpy()

    return Classifier(answer, facts, features)


def without_folders(name: str) -> str:
    """Return a name, or the last part of a path: the rest may be private."""
    return name if name.startswith(("hf:", "timm:", "python:")) else Path(name).name


def _provenance(folder: Path, config: RunConfig) -> dict[str, Any]:
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
    """Load a model written by ``daso export --format safetensors``; see ``load``."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not is_intact(path):
            raise ValueError("wrong checksum: it is damaged; export it again")
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    facts = ModelFacts.from_metadata(metadata, str(path))
    try:
        build = json.loads(metadata["network"])
        config = RunConfig.from_dict(build["config"], str(path))
        output = str(build["output"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} was not exported by daso: {error!r}") from error
    data = {
        **build,
        "class_names": facts.class_names,
        "labeled_counts": facts.labeled_counts,
        "image_shape": facts.input_shape,
    }
    return rebuild_model(config, data, state, output, facts.step, device, str(path), encoder), facts


def open_onnx(path: Path, device: str = "cpu") -> Classifier:
    """Open an ONNX file with onnxruntime.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        OptionError: this onnxruntime does not support the device.
        RunError: the file is not an ONNX model, or was not exported by daso.
    """
    onnxruntime = import_extra("onnxruntime", "onnx", f"{path}: an ONNX file needs")
    kinds = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    kind = "cpu" if device == "auto" else device
    if kinds.get(kind) not in onnxruntime.get_available_providers():
        raise OptionError(f"this onnxruntime does not run on {device!r}")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=[kinds[kind]])
    # onnxruntime does not export its exception classes.
    except Exception as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}") from error
    facts = ModelFacts.from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    name = session.get_inputs()[0].name

    def answer(inputs: Array) -> Array:
        return np.asarray(session.run(None, {name: np.ascontiguousarray(inputs)})[0])

    return Classifier(answer, facts)
