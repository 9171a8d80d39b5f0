"""Every hyper-parameter of a method in a benchmark setting, worked out without the data, and who decided it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from daso.compose import Recipe
from daso.data.benchmarks.semi_aves import SIDE
from daso.parts import Facts
from daso.presets.benchmarks import Preset
from daso.reproduce.scales import SCALES
from daso.train.step.augmentation import Augmentation

SIDES = {"cifar10": 32, "cifar100": 32, "stl10": 96, "semi-aves": SIDE, "semi-aves-open": SIDE}
"""Of the images that are augmented, in pixels."""
TRAINING = (
    "steps",
    "batch",
    "unlabeled_ratio",
    "labeled_sampling",
    "network",
    "resolution",
    "optimizer",
    "learning_rate",
    "backbone_rate",
    "schedule",
    "momentum",
    "weight_decay",
    "ema_decay",
    "precision",
    "evaluate_every",
)
OF_METHOD = ("unlabeled_ratio", "learning_rate", "schedule")
"""What a method has a default of its own for."""
GENERAL = "general default"


class Resolved(NamedTuple):
    """A value of a setting: in which group it is, what of, how much, and who decided it."""

    group: str
    name: str
    value: Any
    decided_by: str


def resolve(preset: Preset, method: str) -> tuple[str, list[Resolved]]:
    """Return the method that a setting makes of one, by name, and all values of its training.

    They are those that ``daso train SETTING --method METHOD`` writes into ``config.json``.

    Raises:
        OptionError: the method is unknown.
    """
    name = preset.method_for(method)
    return name, [
        *_split(preset),
        *_training(preset, name),
        *_augmentation(preset, name),
        *_parts(preset, name),
    ]


def _split(preset: Preset) -> Iterator[Resolved]:
    for name, value in vars(preset.defaults.split).items():
        if value is not None:
            yield Resolved("split", name, value, preset.name)


def _training(preset: Preset, method: str) -> Iterator[Resolved]:
    learner = Recipe.parse(method).method
    train = SCALES["full"].configure(preset, method, {}).train
    defaults = preset.defaults.for_learner(learner)
    for name in TRAINING:
        value, decided_by = getattr(train, name), GENERAL
        if getattr(defaults, name, None) is not None:
            decided_by = preset.name
        elif name in OF_METHOD:
            value, decided_by = getattr(learner, name), learner.__name__
        elif name == "evaluate_every":
            value = train.evaluation_period
        if name == "unlabeled_ratio" and not learner.unlabeled_views:
            continue
        if value is not None:
            yield Resolved("training", name, value, decided_by)


def _augmentation(preset: Preset, method: str) -> Iterator[Resolved]:
    given = SCALES["full"].configure(preset, method, {}).augmentation
    side = SIDES[preset.source]
    for name, value in vars(Augmentation(given, side, side, flip=True).options).items():
        decided_by = GENERAL
        if value is None:
            continue
        if getattr(preset.defaults, name, None) is not None:
            decided_by = preset.name
        elif getattr(given, name) is None:
            decided_by = preset.source if name == "flip" else f"images of {side} pixels"
        yield Resolved("augmentation", name, value, decided_by)


def _parts(preset: Preset, method: str) -> Iterator[Resolved]:
    recipe = Recipe.parse(method)
    known = recipe.hyperparameters()
    config = SCALES["full"].configure(preset, method, preset.options_for(method))
    counts = preset.labeled_counts()
    classes = (
        torch.ones(preset.num_classes, dtype=torch.int64)
        if counts is None
        else torch.from_numpy(counts)
    )
    # No default depends on how many features or unlabelled images there are: the least there can be.
    steps = config.train.steps
    facts = Facts(preset.num_classes, 1, classes, classes, steps, num_unlabeled=1)
    plan = recipe.build_plan(facts, config.method_options)
    stage = next(number for number, stage in enumerate(plan.stages()) if stage.method is None)
    facts = Facts(
        preset.num_classes, 1, classes, classes, plan.stages()[stage].steps, num_unlabeled=1
    )
    built = recipe.build_method(plan.facts(stage, facts), config.method_options)
    for name, value in recipe.resolved_options(built, plan).items():
        if name in config.method_options:
            decided_by = preset.name
        elif known[name].default is None:
            decided_by = f"{known[name].part}, worked out"
        else:
            decided_by = known[name].part
        yield Resolved("method", name, value, decided_by)
