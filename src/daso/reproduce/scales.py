"""The sizes at which the paper's tables can be run: the paper's own, one for a CPU, one for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.presets.benchmarks import Preset
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.view_options import ViewOptions


@dataclass(frozen=True)
class Scale:
    """What is changed in a benchmark setting to make its runs shorter.

    What is a share of the training shrinks by itself: DASO's warm-up (at most a fifth), ramps, DARP's start, deferred
    re-weighting, CReST's generations, the supervised schedule.

    Attributes:
        name: of the scale.
        title: in words.
        comparable: whether its numbers can be compared with the paper's.
        train: options of the training in place of the setting's.
        split: options of the split in place of those that the setting has.
        most_holdout: the hold-out is the setting's, but at most this many images.
    """

    name: str
    title: str
    comparable: bool = False
    train: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    most_holdout: int | None = None

    def configure(
        self,
        preset: Preset,
        method: str,
        options: Mapping[str, Any],
        *,
        seed: int = 0,
        device: str = "auto",
    ) -> RunConfig:
        """Return the configuration of a run in a benchmark setting at this scale.

        Raises:
            OptionError: the method is unknown.
        """
        recipe = Recipe.parse(method)
        defaults = preset.defaults.for_learner(recipe.method)
        if "steps" in self.train:
            defaults = dataclasses.replace(defaults, warmup_steps=None, histogram_period=None)
        decided = {name: value for name, value in vars(defaults).items() if value is not None}
        train = {**_fields(TrainOptions, decided), **self.train}
        return RunConfig(
            source=preset.source,
            method=method,
            method_options={**defaults.part_options(recipe.hyperparameters()), **options},
            split=self._split(preset.defaults.split),
            train=TrainOptions(**{**train, "seed": seed, "device": device}),
            augmentation=ViewOptions(**_fields(ViewOptions, decided)),
        )

    def _split(self, split: SplitOptions) -> SplitOptions:
        holdout = split.holdout
        if holdout is not None and self.most_holdout is not None:
            holdout = min(holdout, self.most_holdout)
        replaced = {
            name: value for name, value in self.split.items() if getattr(split, name) is not None
        }
        return dataclasses.replace(split, holdout=holdout, **replaced)

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain JSON values."""
        return {**vars(self), "train": dict(self.train), "split": dict(self.split)}


def _fields(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


SCALES = {
    scale.name: scale
    for scale in (
        Scale("full", "the paper's protocol", comparable=True),
        Scale(
            "lite",
            "WRN-10-2 on images of 16 pixels, augmented at their own size; 4,000 steps of 32 labelled images, bfloat16",
            train={
                "network": "wrn-10-2",
                "resolution": 16,
                "steps": 4000,
                "batch": 32,
                "evaluate_every": 200,
                "precision": "bfloat16",
            },
            most_holdout=1000,
        ),
        Scale(
            "smoke",
            "16 steps of a network of 4 channels: only to see that everything works",
            train={
                "network": "small-4",
                "steps": 16,
                "batch": 8,
                "evaluate_every": 4,
                "log_every": 4,
            },
            split={
                "labeled_head": 10,
                "unlabeled_head": 20,
                "gamma_labeled": 5,
                "gamma_unlabeled": 5,
            },
            most_holdout=100,
        ),
    )
}
