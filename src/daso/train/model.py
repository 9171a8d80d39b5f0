"""Load a trained network from a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import MissingDependencyError, RunError, first_line
from daso.files import read_json
from daso.nets.network import Network
from daso.nets.readout import NAME, Readout
from daso.train.config import RunConfig
from daso.train.encoder.build import build_network, fall_back_to_float32, trained_encoder
from daso.train.encoder.pretrained import require_given, with_kept_backbone
from daso.train.folder.best import model_folder
from daso.train.folder.checkpoint import load_checkpoint, refuse_changed_configuration


@dataclass(frozen=True)
class Model:
    """The moving-average network of a run, ready to classify.

    Attributes:
        labeled_counts: labeled training images per class.
        image_shape: channels, height and width of the training images; of vectors their length.
    """

    network: Network
    class_names: tuple[str, ...]
    labeled_counts: tuple[int, ...]
    image_shape: tuple[int, ...]
    step: int
    config: RunConfig


def load_model(
    folder: Path,
    device: torch.device,
    warn: Callable[[str], None],
    encoder: nn.Module | None = None,
) -> Model:
    """Load the moving-average network that is a run's model; the data is not needed.

    It comes from the newest complete checkpoint, or with ``deploy="best"`` from the one with the
    highest balanced accuracy on the hold-out so far.

    Args:
        encoder: module like the custom one that the run was given, if any; the run has its weights.

    Raises:
        OptionError: the run was given a custom encoder and *encoder* is missing.
        RunError: the folder is no run, has no complete checkpoint, or its files do not match.
    """
    config = RunConfig.read(folder)
    data = read_json(folder / "data.json")
    checkpoint = load_checkpoint(model_folder(folder, config.train.deploy), warn)
    refuse_changed_configuration(folder, config.fingerprint(), checkpoint.configuration)
    state = with_kept_backbone(folder, data, checkpoint.average())
    return rebuild_model(
        config, data, state, checkpoint.output, checkpoint.step, device, str(folder), encoder
    )


def rebuild_model(
    config: RunConfig,
    data: dict[str, Any],
    state: dict[str, Tensor],
    output: str,
    step: int,
    device: torch.device,
    where: str,
    given: nn.Module | None = None,
) -> Model:
    """Build a model from its description and its tensors.

    Args:
        state: state of the network; heads that are missing are not built.
        where: names the files in errors.
        given: module like the custom encoder that the training was given, if any.

    Raises:
        OptionError: the training was given a custom encoder and *given* is missing.
        RunError: the parts do not match.
    """
    require_given(data, given)
    try:
        names = tuple(map(str, data["class_names"]))
        counts = tuple(map(int, data["labeled_counts"]))
        shape = tuple(map(int, data["image_shape"]))
        encoder, preprocessing = trained_encoder(config.train, data, given)
        heads = {n.split(".")[1]: len(t) for n, t in state.items() if n.startswith("heads.")}
        readout = Readout.like(state)
        outputs = heads if readout is None else {**heads, NAME: len(readout.intercept)}
        if outputs.get(output) != len(names):
            raise ValueError(f"no head {output!r} for {len(names)} classes among {outputs}")
        network = build_network(config.train, shape, encoder, heads, output, preprocessing)
        if readout is not None and output == NAME:
            network.read_out(readout)
        network.load_state_dict(state)
    except MissingDependencyError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{where}: configuration, data and checkpoint do not match: {first_line(error)}"
        ) from error
    network = network.to(device).eval()
    if not data.get("embedding"):  # embeddings were computed without gradients
        fall_back_to_float32(network, shape)
    return Model(network, names, counts, shape, step, config)
