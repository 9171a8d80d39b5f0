"""The sizes at which the paper's tables can be run: the paper's, one for a CPU, one for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.presets.benchmarks import Preset
from daso.presets.layers import Layer, configuration, decide, method_layers
from daso.train.config import RunConfig
from daso.train.encoder.precision import choose_precision


@dataclass(frozen=True)
class Scale:
    """What is changed in a benchmark setting to make its runs shorter.

    Shares of the training shrink with it: DASO's warm-up (at most a fifth), ramps, DARP's start,
    deferred re-weighting, CReST's generations, the supervised schedule.

    Attributes:
        comparable: whether its numbers can be compared with the paper's.
        most_holdout: largest hold-out; a smaller one of the setting is kept.
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

        *options* are hyper-parameters that differ from the defaults of the setting and the method.
        """
        recipe = Recipe.parse(method)
        known = recipe.hyperparameters()
        layers = [
            *method_layers(known),
            preset.layer(method, recipe.method),
            Layer(self.name, {**self.train, **self._split(preset.defaults.split)}),
            Layer("the table's row", options),
            Layer("the campaign", {"seed": seed, "device": device}),
        ]
        if "steps" in self.train and "histogram_period" in known:
            # The setting's period is an epoch of a long training; the method's is in steps.
            period = known["histogram_period"].default
            layers.insert(-2, Layer(self.name, {"histogram_period": period}))
        return configuration(preset.source, method, decide(layers))

    def on(self, device: torch.device) -> Scale:
        """Return the scale with the precision decided that it leaves to the device."""
        if self.train.get("precision") != "auto":
            return self
        chosen = choose_precision(device).precision
        return replace(self, train={**self.train, "precision": chosen})

    def _split(self, split: SplitOptions) -> dict[str, Any]:
        values = {n: v for n, v in self.split.items() if getattr(split, n) is not None}
        if split.holdout is not None and self.most_holdout is not None:
            values["holdout"] = min(split.holdout, self.most_holdout)
        return values

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "train": dict(self.train), "split": dict(self.split)}


SMOKE_TRAIN = {"network": "small-4", "steps": 16, "batch": 8, "evaluate_every": 4, "log_every": 4}
SMOKE_SPLIT = {"labeled_head": 10, "unlabeled_head": 20, "gamma_labeled": 5, "gamma_unlabeled": 5}
SCALES = {
    scale.name: scale
    for scale in (
        Scale("full", "the paper's protocol", comparable=True),
        Scale(
            "lite",
            "WRN-10-2 on images of 16 pixels, augmented at their own size; 4,000 steps of 32 "
            "labeled images, in the faster precision",
            train={
                "network": "wrn-10-2",
                "resolution": 16,
                "steps": 4000,
                "batch": 32,
                "evaluate_every": 200,
                "precision": "auto",
            },
            most_holdout=1000,
        ),
        Scale(
            "smoke",
            "16 steps of a network of 4 channels: only to see that everything works",
            train=SMOKE_TRAIN,
            split=SMOKE_SPLIT,
            most_holdout=100,
        ),
    )
}
