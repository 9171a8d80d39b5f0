"""The setting of ``daso demo``."""

from __future__ import annotations

from daso.data.longtail import SplitOptions
from daso.presets.sources import MISMATCH_TEMPERATURE
from daso.train.config import RunConfig
from daso.train.options import TrainOptions

METHODS = ("supervised", "fixmatch", "fixmatch+daso")
SEEDS = (0, 1, 2, 3, 4)

SPLIT = SplitOptions(
    labeled_head=10, unlabeled_head=70, gamma_labeled=10, unlabeled_shape="uniform", holdout=0
)


STEPS = 800


def demo_config(method: str, seed: int, steps: int | None = None) -> RunConfig:
    """Return one run of the demonstration: scikit-learn's digits, long-tailed labels, uniform unlabelled images."""
    options = TrainOptions(
        steps=steps or STEPS,
        batch=32,
        network="small-16",
        seed=seed,
        device="cpu",
        evaluate_every=20,
    )
    return RunConfig(
        source="digits",
        method=method,
        method_options={"dist_temperature": MISMATCH_TEMPERATURE} if "daso" in method else {},
        split=SPLIT,
        train=options,
    )
