"""Every hyper-parameter of a method in a benchmark setting, and who decided it; needs no data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch

from daso.compose import Recipe
from daso.data.benchmarks.semi_aves import SIDE
from daso.parts import Facts
from daso.presets.benchmarks import Preset
from daso.presets.layers import Decision, Layer, configuration, decide, method_layers
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.step.augmentation import Augmentation
from daso.train.view_options import ViewOptions

SIDES = {"cifar10": 32, "cifar100": 32, "stl10": 96, "semi-aves": SIDE, "semi-aves-open": SIDE}
"""Side in pixels of the images that are augmented."""
TRAINING = (
    *("steps", "batch", "unlabeled_ratio", "labeled_sampling", "network", "resolution"),
    *("optimizer", "learning_rate", "backbone_rate", "schedule", "momentum", "weight_decay"),
    *("ema_decay", "precision", "evaluate_every"),
)
OF_METHOD = ("unlabeled_ratio", "learning_rate", "schedule")
"""Options for which a method has its own defaults."""
GENERAL = "general default"


class Resolved(NamedTuple):
    """A value of a setting: its group, its name, the value, and who decided it."""

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
    recipe = Recipe.parse(name)
    layers = [*method_layers(recipe.hyperparameters()), preset.layer(name, recipe.method)]
    config = configuration(preset.source, name, decide(layers))
    learner = {option: getattr(recipe.method, option) for option in OF_METHOD}
    options = (*fields(TrainOptions), *fields(ViewOptions))
    general = {option.name: option.default for option in options}
    general["evaluate_every"] = config.train.evaluation_period
    # The setting's decisions override those of a run.
    decisions = decide([Layer(GENERAL, general), Layer(recipe.method.__name__, learner), *layers])
    split = [
        Resolved("split", n, v, preset.name) for n, v in vars(config.split).items() if v is not None
    ]
    training, views = _training(recipe, decisions), _augmentation(preset, config, decisions)
    return name, [*split, *training, *views, *_parts(preset, recipe, config, decisions)]


def _training(recipe: Recipe, decisions: Mapping[str, Decision]) -> Iterator[Resolved]:
    for name in TRAINING:
        value, decided_by, _ = decisions[name]
        if value is None or (name == "unlabeled_ratio" and not recipe.method.unlabeled_views):
            continue
        yield Resolved("training", name, value, decided_by)


def _augmentation(
    preset: Preset, config: RunConfig, decisions: Mapping[str, Decision]
) -> Iterator[Resolved]:
    side = SIDES[preset.source]
    resolved = Augmentation(config.augmentation, side, side, flip=True).options
    for name, value in vars(resolved).items():
        if value is None:
            continue
        decided_by = decisions[name].decided_by
        if getattr(config.augmentation, name) is None:
            decided_by = preset.source if name == "flip" else f"images of {side} pixels"
        yield Resolved("augmentation", name, value, decided_by)


def _parts(
    preset: Preset, recipe: Recipe, config: RunConfig, decisions: Mapping[str, Decision]
) -> Iterator[Resolved]:
    counts = preset.labeled_counts()
    ones = torch.ones(preset.num_classes, dtype=torch.int64)
    classes = ones if counts is None else torch.from_numpy(counts)

    def facts(steps: int) -> Facts:
        # No default depends on the number of features or unlabeled images: one of each will do.
        return Facts(preset.num_classes, 1, classes, classes, steps, num_unlabeled=1)

    plan = recipe.build_plan(facts(config.train.steps), config.method_options)
    own = plan.own_stage()
    known = plan.facts(own, facts(plan.stages()[own].steps))
    built = recipe.build_method(known, config.method_options)
    for name, value in recipe.resolved_options(built, plan).items():
        decision = decisions[name]
        computed = "" if decision.value is not None else ", computed"
        yield Resolved("method", name, value, f"{decision.decided_by}{computed}")
