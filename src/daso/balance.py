"""How labeled images are drawn, and what has balanced the classifier of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Sampling = Literal["uniform", "class-balanced", "effective-number"]
"""How the labeled images of a batch are drawn."""
BALANCING_IN_0_1_0 = ("abc", "class-balanced", "crt", "la", "ldam")
"""Names of the parts that balance; run folders of daso 0.1.0 do not record them."""


def balanced_by(config: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts and the sampling that have balanced a run's classifier; () if nothing has.

    The probabilities of such a classifier are those for balanced classes. Post-hoc logit adjustment
    would correct them a second time, in favor of the rare classes.
    """
    method, train = data.get("method"), config.get("train")
    recorded = method.get("balanced_by") if isinstance(method, dict) else None
    if isinstance(recorded, list):
        parts = tuple(map(str, recorded))
    else:
        names = str(config.get("method")).split("+")
        parts = tuple(name for name in BALANCING_IN_0_1_0 if name in names)
    sampling = train.get("labeled_sampling") if isinstance(train, dict) else None
    if not isinstance(sampling, str) or sampling == "uniform":
        return parts
    return (*parts, f"{sampling} sampling")
