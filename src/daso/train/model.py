"""A trained network from a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import MissingDependencyError, RunError
from daso.files import read_json
from daso.nets.network import Network
from daso.train.config import RunConfig
from daso.train.encoder.bfloat16 import spare_bfloat16
from daso.train.encoder.build import build_network, trained_encoder
from daso.train.encoder.pretrained import require_given, with_kept_backbone
from daso.train.folder.best import model_folder
from daso.train.folder.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Model:
    """The moving-average network of a run, ready to classify.

    Attributes:
        network: in evaluation mode.
        class_names: K names.
        labeled_counts: labelled training images of each class.
        image_shape: channels, height and width of the images it was trained on; of vectors their length alone.
        step: training steps it had.
        config: of the run.
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

    It is that of the newest whole checkpoint, or, if the run was told to deploy the best one, that of the highest
    balanced accuracy on the hold-out, as far as the training is.

    Args:
        folder: of the run.
        device: where the network shall be.
        warn: is told of damaged checkpoints.
        encoder: a module like the one that the run was given from Python, if it was; its weights are the run's.

    Raises:
        OptionError: the run was given an encoder from Python and this is not.
        RunError: the folder is no run, has no whole checkpoint, or its files do not fit each other.
    """
    config = RunConfig.read(folder)
    data = read_json(folder / "data.json")
    checkpoint = load_checkpoint(model_folder(folder, config.train.deploy), warn)
    prefix = "average."
    state = {n[len(prefix) :]: t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    state = with_kept_backbone(folder, data, state)
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
    """Build a model from what describes it and its tensors.

    Args:
        config: of the run.
        data: as in ``data.json``: ``class_names``, ``labeled_counts``, ``image_shape``, ``mean`` and ``std``; and of a
            pretrained encoder ``backbone`` and ``embedding``.
        state: of the network; heads that it does not hold are not made.
        output: name of the head that classifies.
        step: training steps it had.
        device: where the network shall be.
        where: names the files in errors.
        given: a module like the one that the training was given from Python, if it was.

    Raises:
        OptionError: it was given one and this is not.
        RunError: they do not fit each other.
    """
    require_given(data, given)
    try:
        names, counts = (
            tuple(map(str, data["class_names"])),
            tuple(map(int, data["labeled_counts"])),
        )
        shape, mean, std = tuple(map(int, data["image_shape"])), data["mean"], data["std"]
        encoder, looks = trained_encoder(config.train, data, given)
        weights = {n.split(".")[1]: t for n, t in state.items() if n.startswith("heads.")}
        heads = {name: len(bias) for name, bias in weights.items()}
        if heads.get(output) != len(names):
            raise ValueError(f"no head {output!r} for {len(names)} classes among {heads}")
        network = build_network(config.train, shape, encoder, heads, mean, std, output, looks)
        network.load_state_dict(state)
    except MissingDependencyError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{where}: configuration, data and checkpoint do not fit each other: {reason}"
        ) from error
    network = network.to(device).eval()
    if not data.get("embedding"):  # embeddings were computed without gradients
        spare_bfloat16(network, shape)
    return Model(network, names, counts, shape, step, config)
