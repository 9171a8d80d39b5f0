"""What a term is given and what it returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from daso.nets.network import Network
from daso.parts import Part
from daso.refine.guess import Guess


class Outputs(NamedTuple):
    """What a method has computed in a step.

    Attributes:
        labeled: float, (B, D), features of the labelled images, with gradient.
        labels: int64, (B,).
        strong: float, (U, D), features of the strong views, with gradient.
        guess: the refined guess about the unlabelled images, the term's own beliefs among its ``others``.
        draws: what the method's parts drew for this step.
    """

    labeled: Tensor
    labels: Tensor
    strong: Tensor
    guess: Guess
    draws: dict[str, Tensor]


class Term(Part):
    """Adds losses to those of a method."""

    def beliefs(self, network: Network, weak: Tensor) -> dict[str, Tensor]:
        """Return the term's own class probabilities (U, K) of the weak views, by name, to be refined like the
        method's guess; *weak* holds their features (U, D). Nothing carries a gradient."""
        return {}

    def forward(self, network: Network, outputs: Outputs) -> dict[str, Tensor]:
        """Return losses by name, weighted, each a scalar."""
        raise TypeError(
            f"{type(self).__name__} does not say what it adds: it has no forward method"
        )
