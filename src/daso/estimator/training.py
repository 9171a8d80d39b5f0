"""The training of a network of an estimator: all stages, rows of numbers, early stopping."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from daso.train.loop import fit
from daso.train.prepare import Prepared

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


def train(
    prepared: Prepared, history: Rows, *, number: int, early: EarlyStopping | None, verbose: bool
) -> Prepared:
    """Train all stages of a network; return what was ready for the last one, now trained.

    With early stopping, the moving average of the network is the best one.

    Args:
        prepared: for the first stage.
        history: to which rows are appended.
        number: of the network, from 0, for the rows.
        early: None: no early stopping.
        verbose: whether rows are printed.
    """
    last = len(prepared.plan.stages()) - 1
    while True:
        ends = prepared.stage == last
        kept = _train_stage(
            prepared, history, number, early=early if ends else None, verbose=verbose
        )
        if ends:
            break
        prepared.plan.conclude(prepared.stage, prepared.training.average.network, prepared.data)
        prepared = prepared.begin_stage(prepared.stage + 1)
    if kept is not None:
        prepared.training.average.network.load_state_dict(kept)
    return prepared


def _train_stage(
    prepared: Prepared, history: Rows, number: int, *, early: EarlyStopping | None, verbose: bool
) -> dict[str, Tensor] | None:
    """Train a stage; return the best state of the network on the rows that were set aside, if it is to be kept."""
    best, since, kept = -math.inf, 0, None
    for row in fit(prepared.training, prepared.batches, prepared.data):
        row = row | {"network": number, "step": row["step"] + prepared.first_step}
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


def _line(row: dict[str, Any]) -> str:
    """Return a row of the training in words."""
    parts = [f"network {row['network']}", f"step {row['step']}"]
    if row["event"] == "train":
        parts.append(f"loss {row['loss']:.4f}")
        if "share_confident" in row:
            parts.append(f"confident {100 * row['share_confident']:.0f}%")
    else:
        parts.append(f"hold-out balanced accuracy {100 * row['holdout']['balanced_accuracy']:.1f}%")
    return ", ".join(parts)
