"""Which methods are balanced while they train: what post-hoc adjustments and reports have to know."""

from __future__ import annotations

from typing import Literal

Sampling = Literal["uniform", "class-balanced", "effective-number"]
"""Of the labelled images of a batch."""
BALANCED = frozenset({"la", "abc", "crt", "class-balanced", "ldam"})
"""Parts of a method that leave no bias to frequent classes: its probabilities are those of balanced classes."""


def balancing_parts(method: str, labeled_sampling: str = "uniform") -> tuple[str, ...]:
    """Return what in a run's method and sampling of labels has balanced its classifier, sorted; () if nothing has.

    Such a classifier is not to be adjusted once more: post-hoc logit adjustment would favour the rare classes.
    """
    parts = sorted(BALANCED & set(method.split("+")))
    return (
        tuple(parts) if labeled_sampling == "uniform" else (*parts, f"{labeled_sampling} sampling")
    )
