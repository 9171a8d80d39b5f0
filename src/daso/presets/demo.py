"""The setting of ``daso demo``: long-tailed labeled digits, uniform unlabeled ones."""

from __future__ import annotations

from daso.data.longtail import SplitOptions
from daso.presets.layers import Layer, configuration, decide, method_layers
from daso.presets.sources import MISMATCH_TEMPERATURE, SourceDefaults
from daso.train.config import RunConfig

METHODS = ("supervised", "supervised+la", "fixmatch+daso", "supervised+la+mixture")
SEEDS = (0, 1, 2, 3, 4)
STEPS = 400
"""Of a training; the mixture is fitted to patches, without one."""
SPLIT = SplitOptions(
    labeled_head=10, unlabeled_head=70, gamma_labeled=10, unlabeled_shape="uniform", holdout=0
)
OPTIONS = {"batch": 32, "network": "small-16"}
DEFAULTS = SourceDefaults(SPLIT, OPTIONS, dist_temperature=MISMATCH_TEMPERATURE)


def demo_config(method: str, seed: int, steps: int | None = None) -> RunConfig:
    """Return the configuration of one run of the demonstration."""
    from daso.compose import Recipe  # imports torch, which --help does not need

    recipe = Recipe.parse(method)
    layers = [
        *method_layers(recipe.hyperparameters()),
        DEFAULTS.layer("demo", method, recipe.method, SPLIT),
        Layer("run", {"seed": seed, "device": "cpu", "evaluate_every": 20}),
        Layer("length", {"steps": 0 if recipe.readout else STEPS if steps is None else steps}),
    ]
    return configuration("digits", method, decide(layers))
