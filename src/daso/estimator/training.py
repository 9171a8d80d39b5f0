"""The training of an estimator: all stages, rows of numbers, early stopping; and its network in a pickle."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import OptionError
from daso.nets.network import Network
from daso.train.config import RunConfig
from daso.train.fit import fit
from daso.train.model import rebuild_model
from daso.train.prepare import Prepared, describe_data
from daso.train.training import choose_device

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class EarlyStopping:
    """Of the last stage, by the balanced accuracy on rows that were set aside.

    Attributes:
        patience: evaluations without a better one after which it ends.
        adjusted: whether the logits are adjusted before they are measured.
    """

    patience: int
    adjusted: bool


def train(prepared: Prepared, history: Rows, *, early: EarlyStopping | None, verbose: bool) -> Prepared:
    """Train all stages; append their rows to *history*; return what was ready for the last stage, now trained.

    With early stopping, the moving average of the network is the best one.
    """
    last = len(prepared.plan.stages()) - 1
    while True:
        ends = prepared.stage == last
        kept = _train_stage(prepared, history, early=early if ends else None, verbose=verbose)
        if ends:
            break
        prepared.plan.conclude(prepared.stage, prepared.training.average.network, prepared.data)
        prepared = prepared.begin_stage(prepared.stage + 1)
    if kept is not None:
        prepared.training.average.network.load_state_dict(kept)
    return prepared


def _train_stage(
    prepared: Prepared, history: Rows, *, early: EarlyStopping | None, verbose: bool
) -> dict[str, Tensor] | None:
    """Train a stage; return the best state of the network on the rows that were set aside, if it is to be kept."""
    best, since, kept = -math.inf, 0, None
    for row in fit(prepared.training, prepared.batches, prepared.data):
        row = row | {"step": row["step"] + prepared.first_step}
        history.append(row)
        if verbose and (row["event"] == "train" or "holdout" in row):
            print(_line(row), flush=True)
        if early is None or row["event"] != "evaluate":
            continue
        numbers = row["holdout"]["logit_adjusted"] if early.adjusted else row["holdout"]
        reached = numbers["balanced_accuracy"]
        if reached > best:
            best, since = reached, 0
            kept = copy.deepcopy(prepared.training.average.network.state_dict())
        else:
            since += 1
            if since >= early.patience:
                break
    return kept


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return what a network is built again from, with its weights: plain values."""
    data = describe_data(prepared.data, prepared.backbone)
    return {
        "config": prepared.config.to_dict(),
        "data": {name: value for name, value in data.items() if "fingerprint" not in name},
        "output": prepared.training.average.network.output,
    }


def rebuild(
    about: dict[str, Any], weights: dict[str, Tensor], steps: int, device: str, encoder: nn.Module | None
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
    what = "a pickled DASOClassifier"
    config = RunConfig.from_dict(about["config"], what)
    with torch.random.fork_rng([]):
        return rebuild_model(
            config, about["data"], weights, about["output"], steps, chosen, what, encoder
        ).network


def _line(row: dict[str, Any]) -> str:
    """Return a row of the training in words."""
    parts = [f"step {row['step']}"]
    if row["event"] == "train":
        parts.append(f"loss {row['loss']:.4f}")
        if "share_confident" in row:
            parts.append(f"confident {100 * row['share_confident']:.0f}%")
    else:
        parts.append(f"hold-out balanced accuracy {100 * row['holdout']['balanced_accuracy']:.1f}%")
    return ", ".join(parts)
