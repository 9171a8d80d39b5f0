"""The trained networks of an estimator: what they say of rows, together, and what a pickle holds of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from daso.errors import OptionError
from daso.evaluate.predict import predict_logits
from daso.nets.network import Network
from daso.train.config import RunConfig
from daso.train.model import rebuild_model
from daso.train.prepare import Prepared, describe_data
from daso.train.step.state import choose_device

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def log_probabilities(networks: Sequence[Network], inputs: Array) -> Array:
    """Return the logs of the mean of the networks' probabilities, float64 (N, K).

    Args:
        networks: at least one.
        inputs: images, uint8 (N, C, H, W), or standardised features, float64 (N, D). Features go through the networks
            in double precision, so that the answer to a row does not depend on those beside it.
    """
    rows = torch.from_numpy(np.ascontiguousarray(inputs))
    logits = _logits_of_vectors if rows.dim() == 2 else predict_logits
    each = torch.stack([logits(network, rows).double().log_softmax(1) for network in networks])
    return np.asarray((torch.logsumexp(each, 0) - math.log(len(networks))).numpy())


@torch.no_grad()
def _logits_of_vectors(network: Network, rows: Tensor) -> Tensor:
    network = copy.deepcopy(network).cpu().double()
    head = network.heads[network.output]
    return torch.cat([head(network.encoder(chunk)) for chunk in torch.split(rows, 4096)])


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return what a network is built again from, with its weights: plain values."""
    data = describe_data(prepared.data, prepared.backbone)
    return {
        "config": prepared.config.to_dict(),
        "data": {name: value for name, value in data.items() if "fingerprint" not in name},
        "output": prepared.training.average.network.output,
    }


def to_arrays(network: Network) -> Arrays:
    """Return the weights of a network by name."""
    return {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}


def rebuild(
    about: dict[str, Any], weights: Arrays, steps: int, device: str, encoder: nn.Module | None
) -> Network:
    """Build a network again, on a device or, where there is none such, the CPU.

    Args:
        about: as ``describe`` returned it.
        weights: of the network, by name.
        steps: that it was trained for.
        device: a name, or ``"auto"``.
        encoder: a module of one's own that it was built from.
    """
    try:
        chosen = choose_device(device)
    except OptionError:
        chosen = torch.device("cpu")
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    what = "a pickled DASOClassifier"
    config = RunConfig.from_dict(about["config"], what)
    with torch.random.fork_rng([]):
        return rebuild_model(
            config, about["data"], tensors, about["output"], steps, chosen, what, encoder
        ).network
