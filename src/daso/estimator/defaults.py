"""The configuration of a training that the estimator's arguments stand for; what they leave open, by the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral
from typing import Any, TypeVar

from torch import nn

from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.errors import OptionError, nearest
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.view_options import VectorViewOptions, ViewOptions

Options = TypeVar("Options", TrainOptions, ViewOptions, VectorViewOptions)

NETWORKS = {"vectors": 3, "images": 1}
"""How many are trained."""

VECTOR_OPTIONS = {"threshold": 0.8, "rotation_weight": 0.0}
"""Hyper-parameters of methods that have other defaults on feature vectors."""


def configure(
    arguments: Mapping[str, Any], *, seed: int, vectors: bool, labeled: int, unlabeled: int
) -> RunConfig:
    """Return the configuration of a training.

    Args:
        arguments: of the estimator, by name.
        seed: of the training.
        vectors: whether rows are feature vectors; otherwise they are images.
        labeled, unlabeled: numbers of rows.

    Raises:
        OptionError: an option is unknown or out of range.
    """
    steps = arguments["steps"]
    if steps is None:
        steps = default_steps(labeled, unlabeled, vectors=vectors)
    if not isinstance(steps, Integral) or steps < 1:
        raise OptionError(f"steps = {steps!r} must be a whole number of at least 1")
    steps, batch, network = int(steps), arguments["batch_size"], arguments["network"]
    train = {
        "steps": steps,
        "batch": (16 if vectors else 32) if batch is None else batch,
        "learning_rate": arguments["learning_rate"],
        "labeled_sampling": arguments["labeled_sampling"],
        "ema_decay": 0.99 if steps < 5000 else 0.999,
        "network": None if isinstance(network, nn.Module) else network,
        "device": arguments["device"],
        "seed": seed,
        "evaluate_every": max(1, steps // 20),
        "log_every": steps,
    }
    known = Recipe.parse(arguments["method"]).hyperparameters()
    own = {name: value for name, value in VECTOR_OPTIONS.items() if vectors and name in known}
    views: Any = VectorViewOptions if vectors else ViewOptions
    return RunConfig(
        source="arrays",
        method=arguments["method"],
        method_options={**own, **(arguments["method_options"] or {})},
        split=SplitOptions(holdout=0),
        train=_options(TrainOptions, "train_options", train, arguments["train_options"]),
        **{
            "vectors" if vectors else "augmentation": _options(
                views, "view_options", {}, arguments["view_options"]
            )
        },
    )


def number_of_networks(given: Any, *, vectors: bool) -> int:
    """Return how many networks are trained: as given, or by what they are trained on.

    Raises:
        OptionError: it is no whole number of at least 1.
    """
    number = NETWORKS["vectors" if vectors else "images"] if given is None else given
    if not isinstance(number, Integral) or number < 1:
        raise OptionError(f"n_networks = {given!r} must be a whole number of at least 1")
    return int(number)


def default_steps(labeled: int, unlabeled: int, *, vectors: bool) -> int:
    """Return the length of a training: 2 steps for each unlabelled row, 1/2 for each labelled one, within bounds."""
    least, most = (100, max(600, (labeled + unlabeled) // 10)) if vectors else (500, 20_000)
    return min(most, max(least, 2 * unlabeled + labeled // 2))


def _options(
    kind: type[Options], argument: str, values: dict[str, Any], given: Mapping[str, Any] | None
) -> Options:
    """Return options of a kind, those of the argument before others.

    Raises:
        OptionError: there is no such option, the nearest one is named; or a value is out of range or of another type.
    """
    known = [field.name for field in fields(kind)]
    for name in given or {}:
        if name not in known:
            raise OptionError(f"{argument}: there is no {name!r}.{nearest(str(name), known)}")
    try:
        return kind(**{**values, **(given or {})})
    except TypeError as error:
        raise OptionError(
            f"{argument}: a value is not of the type that it must be: {error}"
        ) from error
