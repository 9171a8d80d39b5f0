"""Write a model in one of three formats, and read it back for the check."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import nn

from daso.errors import RunError, first_line, import_extra
from daso.evaluate.metrics import Array
from daso.export.facts import ModelFacts
from daso.export.graph import Deployed
from daso.export.loading import classifier_of, load_safetensors, open_onnx, without_folders
from daso.export.seal import SEAL, seal_file
from daso.nets.engines import quiet_export
from daso.train.config import NOT_IN_FINGERPRINT
from daso.train.model import Model

Answer = Callable[[Array], Array]
Format = Literal["onnx", "torch", "safetensors"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
BUILD = ("mean", "std", "backbone", "embedding")
"""Keys of ``data.json`` that are needed, besides the facts, to build the network."""
FACTS_FILE = "facts.json"
"""Name of the facts in a .pt2 archive."""


def write_onnx(model: Model, facts: ModelFacts, path: Path) -> Answer:
    """Write a model, from images to probabilities, as an ONNX file; return a function that runs it.

    Input ``images``: uint8 (batch, C, H, W), or float32 (batch, D) for vectors. Output
    ``probabilities``: float32 (batch, K). Its metadata holds the facts, each as JSON.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        RunError: ONNX cannot express the network.
    """
    packages = ("onnx", "onnxscript", "onnxruntime")
    onnx, *_ = (import_extra(name, "onnx", "--format onnx needs") for name in packages)
    program = _trace(model, facts)
    with _export_errors("onnx"):
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
    _anonymize(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(proto, facts.to_metadata() | SEAL)
    proto.producer_name, proto.producer_version = "daso", str(facts.provenance.get("daso"))
    onnx.save_model(proto, path)
    seal_file(path)
    return open_onnx(path).probabilities


def _anonymize(proto: Any) -> None:
    """Remove lines and paths of source files, which the exporter notes for every operation."""
    graph = proto.graph
    nodes = [node for part in (graph, *proto.functions) for node in part.node]
    for item in (*nodes, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("value_info")  # shapes between the operations, which a runtime infers
    graph.ClearField("metadata_props")


def write_torch(model: Model, facts: ModelFacts, path: Path) -> Answer:
    """Write a model as a ``torch.export`` program; return a function that runs it.

    The program runs without daso. Its extra file ``facts.json`` holds the facts.

    Raises:
        RunError: the network cannot be traced.
    """
    program = _trace(model, facts)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines and paths of this machine's source files
    with _export_errors("torch.export"):
        torch.export.save(program, path, extra_files={FACTS_FILE: json.dumps(facts.to_metadata())})
        again = torch.export.load(path).module()  # just written here, so it is safe to load
    return lambda inputs: np.asarray(again(torch.from_numpy(inputs)).detach().numpy())


def write_safetensors(
    model: Model, facts: ModelFacts, path: Path, data: dict[str, Any], encoder: nn.Module | None
) -> Answer:
    """Write the weights with a header for ``daso.load``; return a function that runs them.

    Auxiliary heads and the location of the data are omitted.

    Args:
        data: the run's ``data.json``.
        encoder: a module like the run's, if that came from Python.
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
        build["embedding"] = {k: v for k, v in build["embedding"].items() if k != "folder"}
    if backbone := build.get("backbone"):
        build["backbone"] = {**backbone, "name": without_folders(backbone["name"])}
    described = {"config": config, "output": network.output, **build}
    metadata = {**facts.to_metadata(), "network": json.dumps(described), "format": "pt"} | SEAL
    path.write_bytes(safetensors.torch.save(state, metadata))
    seal_file(path)
    again, read = load_safetensors(path, torch.device("cpu"), encoder)
    return classifier_of(again.network, read).probabilities


def _trace(model: Model, facts: ModelFacts) -> torch.export.ExportedProgram:
    module = Deployed(model.network, facts.input_shape, facts.temperature).eval()
    dtype = torch.uint8 if facts.takes_images else torch.float32
    # Two images: torch would take a batch of one for a constant.
    example = torch.zeros(2, *facts.input_shape, dtype=dtype)
    with _export_errors("torch.export"), torch.no_grad():
        module(example)  # tables that are made once must not be made while tracing
        batch = torch.export.Dim("batch", min=1)
        return torch.export.export(module, (example,), dynamic_shapes={"images": {0: batch}})


@contextmanager
def _export_errors(tool: str) -> Iterator[None]:
    try:
        with quiet_export():
            yield
    except Exception as error:
        raise RunError(
            f"{tool} cannot express this network: {first_line(error)}; use --format safetensors"
        ) from error
