"""The formats of an exported model: how each is written, and how it is read back to be checked."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import nn

from daso.errors import MissingDependencyError, RunError
from daso.export.facts import Facts
from daso.export.graph import Deployed
from daso.export.loading import load_safetensors, network_answer, onnx_session, without_folders
from daso.train.config import NOT_IN_FINGERPRINT
from daso.train.model import Model

Array = npt.NDArray[Any]
Answer = Callable[[Array], Array]
Format = Literal["onnx", "torch", "safetensors"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
BUILD = ("mean", "std", "backbone", "embedding")
"""Of ``data.json``, what the network is built from beside the facts."""
FACTS_FILE = "facts.json"
"""Of a .pt2 archive."""


def write_onnx(model: Model, facts: Facts, path: Path) -> Answer:
    """Write the whole way from images to probabilities as an ONNX file; return how it answers in onnxruntime.

    Input ``images``, uint8 (batch, C, H, W), or of vectors float32 (batch, D); output ``probabilities``, float32
    (batch, K). The facts are in its metadata, each as JSON.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        RunError: the network holds something that ONNX cannot express.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"--format onnx needs more: pip install 'daso[onnx]' ({error})"
        ) from error
    program = _trace(model, facts)
    with _quiet(), _told("onnx"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            optimize=True,
            verbose=False,
        )
        assert exported is not None
        proto = exported.model_proto
    _anonymise(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(proto, facts.to_metadata())
    proto.producer_name, proto.producer_version = "daso", str(facts.provenance.get("daso"))
    onnx.save_model(proto, path)
    session = onnx_session(path)
    return lambda inputs: np.asarray(session.run(None, {"images": inputs})[0])


def _anonymise(proto: Any) -> None:
    """Remove what the exporter notes of every operation: lines and paths of source files on this machine."""
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    for value in (
        *proto.graph.value_info,
        *proto.graph.initializer,
        *proto.graph.input,
        *proto.graph.output,
    ):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    proto.graph.ClearField(
        "value_info"
    )  # shapes between the operations, which a runtime works out itself
    proto.graph.ClearField("metadata_props")


def write_torch(model: Model, facts: Facts, path: Path) -> Answer:
    """Write the same as a program of ``torch.export``, which torch runs without daso; return how it answers.

    The facts are in its extra file ``facts.json``.

    Raises:
        RunError: the network holds something that cannot be traced.
    """
    program = _trace(model, facts)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines and paths of source files on this machine
    with _quiet(), _told("torch.export"):
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts.to_metadata())})
        again = torch.export.load(path).module()  # written a moment ago: its code is ours
    return lambda inputs: np.asarray(again(torch.from_numpy(inputs)).detach().numpy())


def write_safetensors(
    model: Model, facts: Facts, path: Path, data: dict[str, Any], encoder: nn.Module | None
) -> Answer:
    """Write the weights, and in the header all that ``daso.load`` builds the network from; return how it answers.

    Heads that do not classify are left out, and so is where the data lay.

    Args:
        model, facts: of the run.
        path: of the file.
        data: ``data.json`` of the run.
        encoder: of a run that was given an encoder from Python, a module like it.
    """
    network = model.network
    unused = tuple(f"heads.{name}." for name in network.heads if name != network.output)
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if not name.startswith(unused)
    }
    config = model.config.to_dict()
    for place in (*NOT_IN_FINGERPRINT, "weights"):
        config.pop(place, None)
        config["train"].pop(place, None)
    config |= {"source": without_folders(model.config.source), "method": facts.method}
    config["train"]["precision"] = model.network.precision
    config["train"]["network"] = facts.provenance["network"]
    build = {name: data[name] for name in BUILD if name in data}
    if build.get("embedding"):
        build["embedding"] = {
            name: value for name, value in build["embedding"].items() if name != "folder"
        }
    if build.get("backbone"):
        build["backbone"] = {
            **build["backbone"],
            "name": without_folders(build["backbone"]["name"]),
        }
    described = {"config": config, "output": network.output, **build}
    metadata = {**facts.to_metadata(), "network": json.dumps(described), "format": "pt"}
    path.write_bytes(safetensors.torch.save(state, metadata))
    again, read = load_safetensors(path, torch.device("cpu"), encoder)
    return network_answer(again.network, read.temperature)


def _trace(model: Model, facts: Facts) -> torch.export.ExportedProgram:
    module = Deployed(model.network, facts.input_shape, facts.temperature).eval()
    dtype = torch.uint8 if facts.takes_images else torch.float32
    example = torch.zeros(
        2, *facts.input_shape, dtype=dtype
    )  # two: torch takes a single one for a constant
    with _quiet(), _told("torch.export"), torch.no_grad():
        batch = torch.export.Dim("batch", min=1)
        return torch.export.export(module, (example,), dynamic_shapes={"images": {0: batch}})


@contextmanager
def _told(tool: str) -> Iterator[None]:
    try:
        yield
    # What tracing a network raises depends on the network.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"{tool} cannot express this network: {reason}; --format safetensors can"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
