"""The trained networks of an estimator: their common answer, and how they are pickled."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from daso.errors import OptionError
from daso.evaluate.metrics import Array
from daso.evaluate.predict import predict_logits
from daso.nets.network import Network
from daso.train.config import RunConfig
from daso.train.model import rebuild_model
from daso.train.prepare import Prepared
from daso.train.run_data import describe_data
from daso.train.step.state import choose_device


def log_probabilities(networks: Sequence[Network], inputs: Array) -> Array:
    """Return the logarithms of the networks' mean probabilities, float64 (N, K).

    Images are uint8 (N, C, H, W). Features, float64 (N, D), go through the networks in double
    precision, so that the answer for a row does not depend on the other rows.
    """
    rows = torch.from_numpy(np.require(inputs, requirements=["C", "W"]))  # copied if read-only
    if rows.dim() == 2:
        networks = [copy.deepcopy(network).cpu().double() for network in networks]
    logits = [predict_logits(network, rows).double() for network in networks]
    each = torch.stack([one.log_softmax(1) for one in logits])
    return np.asarray((torch.logsumexp(each, 0) - math.log(len(networks))).numpy())


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return plain values from which, with its weights, a network is rebuilt."""
    data = describe_data(prepared.data, prepared.backbone)
    return {
        "config": prepared.config.to_dict(),
        "data": {name: value for name, value in data.items() if "fingerprint" not in name},
        "output": prepared.training.average.network.output,
    }


def rebuild(
    description: dict[str, Any],
    weights: dict[str, Array],
    steps: int,
    device: str,
    encoder: nn.Module | None,
) -> Network:
    """Rebuild a network on a device, or on the CPU if the device does not exist here.

    Args:
        encoder: the custom module that it was built from.
    """
    try:
        chosen = choose_device(device)
    except OptionError:
        chosen = torch.device("cpu")
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    where = "a pickled DASOClassifier"
    config, output = RunConfig.from_dict(description["config"], where), description["output"]
    described = (config, description["data"], state, output, steps)
    with torch.random.fork_rng([]):
        return rebuild_model(*described, chosen, where, encoder).network
