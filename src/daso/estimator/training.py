"""Train one network of the estimator: its configuration, all stages, early stopping."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.errors import OptionError
from daso.files import Row
from daso.train.config import RunConfig, build
from daso.train.loop import fit
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared
from daso.train.view_options import VectorViewOptions, ViewOptions

VECTOR_DEFAULTS = {"threshold": 0.8, "rotation_weight": 0.0}
"""Hyper-parameters with other defaults on feature vectors."""
EVALUATIONS, READOUTS = 20, 5
"""Evaluations of a training, and those before which a readout is fitted, which takes seconds."""


def configure(
    arguments: Mapping[str, Any], *, vectors: bool, labeled: int, unlabeled: int
) -> RunConfig:
    """Return the configuration of a training on numbers of labeled and unlabeled rows.

    Raises:
        OptionError: an option is unknown or out of range.
    """
    recipe = Recipe.parse(arguments["method"])
    batch, network, steps = (arguments[name] for name in ("batch_size", "network", "steps"))
    batch = (16 if vectors else 32) if batch is None else batch
    if steps is None:
        steps = default_steps(recipe, labeled, unlabeled, vectors=vectors, batch=batch)
    steps = whole_number("steps", steps, least=1 if recipe.readout is None else 0)
    evaluations = EVALUATIONS if recipe.readout is None else READOUTS
    train = {
        "steps": steps,
        "batch": batch,
        "learning_rate": arguments["learning_rate"],
        "labeled_sampling": arguments["labeled_sampling"]
        or ("class-balanced" if recipe.readout is None else "uniform"),
        "ema_decay": 0.99 if steps < 5000 else 0.999,
        "network": None if isinstance(network, nn.Module) else network,
        "device": arguments["device"],
        "evaluate_every": max(1, steps // evaluations),
        "log_every": max(1, steps),
    }
    known = recipe.hyperparameters()
    defaults = {name: value for name, value in VECTOR_DEFAULTS.items() if vectors and name in known}
    train |= arguments["train_options"] or {}
    views = VectorViewOptions if vectors else ViewOptions
    view_options = build(views, arguments["view_options"] or {}, "view_options")
    return RunConfig(
        source="arrays",
        method=arguments["method"],
        method_options={**defaults, **(arguments["method_options"] or {})},
        split=SplitOptions(holdout=0),
        train=build(TrainOptions, train, "train_options"),
        **{"vectors" if vectors else "augmentation": view_options},
    )


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return an argument; raise an ``OptionError`` unless it is a whole number >= *least*."""
    if not isinstance(value, Integral) or value < least:
        raise OptionError(f"{name} = {value!r}: must be a whole number of at least {least}")
    return int(value)


def default_steps(
    recipe: Recipe, labeled: int, unlabeled: int, *, vectors: bool, batch: int
) -> int:
    """Return the steps of a training, within bounds.

    They are 2 for each unlabeled row and 1/2 for each labeled one. A method that learns from labels
    alone passes 100 times over them; beside a readout of vectors it is not trained at all.
    """
    labels_alone = not recipe.method.unlabeled_views
    if labels_alone and vectors and recipe.readout is not None:
        return 0
    least, most = (100, max(600, (labeled + unlabeled) // 10)) if vectors else (500, 20_000)
    wanted = 100 * labeled // batch if labels_alone else 2 * unlabeled + labeled // 2
    return min(most, max(least, wanted))


def train(
    prepared: Prepared,
    history: list[Row],
    *,
    number: int,
    patience: int | None,
    adjusted: bool,
    verbose: bool,
) -> Prepared:
    """Train all stages of a network; return the last one, trained.

    With early stopping, its moving average is the best one.

    Args:
        history: list to which rows are appended.
        patience: evaluations without a better one after which the last stage ends; None: no early
            stopping.
        adjusted: whether the best one is judged by adjusted logits.
    """
    while True:
        state: dict[str, Tensor] | None = None
        best, since_best, readout = -math.inf, 0, prepared.readout
        for row in fit(prepared.training, prepared.batches, prepared.data, readout=readout):
            row |= {"network": number, "step": row["step"] + prepared.first_step}
            history.append(row)
            if verbose and (row["event"] == "train" or "holdout" in row):
                print(_line(row), flush=True)
            if patience is None or row["event"] != "evaluate" or not prepared.is_last_stage:
                continue
            metrics = row["holdout"]["logit_adjusted"] if adjusted else row["holdout"]
            if metrics["balanced_accuracy"] > best:
                best, since_best = metrics["balanced_accuracy"], 0
                state = copy.deepcopy(prepared.training.average.network.state_dict())
            else:
                since_best += 1
                if since_best >= patience:
                    break
        if prepared.is_last_stage:
            break
        prepared = prepared.next_stage()
    if state is not None:
        prepared.training.average.network.load_state_dict(state)
    return prepared


def _line(row: Row) -> str:
    parts = [f"network {row['network']}", f"step {row['step']}"]
    if row["event"] == "train":
        parts.append(f"loss {row['loss']:.4f}")
        if "share_confident" in row:
            parts.append(f"confident {100 * row['share_confident']:.0f}%")
    else:
        parts.append(f"hold-out balanced accuracy {100 * row['holdout']['balanced_accuracy']:.1f}%")
    return ", ".join(parts)
