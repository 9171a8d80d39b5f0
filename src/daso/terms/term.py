"""Terms: further losses, and the values that a method passes to them."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor

from daso.nets.network import Network
from daso.parts import Part
from daso.refine.guess import Guess


class Outputs(NamedTuple):
    """The values that a method has computed in a step.

    Attributes:
        labeled: float, (B, D), features of the labeled images, with gradient.
        labels: int64, (B,).
        strong: float, (U, D), features of the strong views, with gradient.
        guess: the refined guess about the unlabeled images; ``others`` holds the term's beliefs.
        draws: random numbers that the method's parts drew for this step.
    """

    labeled: Tensor
    labels: Tensor
    strong: Tensor
    guess: Guess
    draws: dict[str, Tensor]


class Term(Part):
    """Adds losses to those of a method."""

    kind: ClassVar[str] = "term"

    def beliefs(self, network: Network, weak: Tensor) -> dict[str, Tensor]:
        """Return the term's class probabilities (U, K) of the weak views, by name.

        They are refined like the method's guess. No tensor carries a gradient.

        Args:
            network: in training mode.
            weak: float, (U, D), features of the weak views.
        """
        return {}

    def forward(self, network: Network, outputs: Outputs) -> dict[str, Tensor]:
        """Return losses by name, weighted, each a scalar."""
        raise TypeError(f"{type(self).__name__} has no forward method, which computes its losses")
