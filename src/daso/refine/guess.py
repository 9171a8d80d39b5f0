"""The belief about a batch of unlabelled images, and the refiners that map one belief to the next.

Shape letters: B labelled images of a batch, U unlabelled ones, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from daso.parts import Part


class Guess(NamedTuple):
    """What is believed about the classes of U unlabelled images; nothing in it carries a gradient.

    Attributes:
        probs: float, (U, K), class probabilities.
        features: float, (U, D), of the view that was guessed from.
        indices: int64, (U,), of the images in the unlabelled pool.
        step: int64, (), training steps done so far.
        parts: the probabilities (U, K) that entered the guess, by name (``"linear"``, ``"semantic"``).
        others: the probabilities (U, K) that other heads give the same images, by name. A refiner that knows how
            treats them as it treats ``probs``; they are not counted in its state.
    """

    probs: Tensor
    features: Tensor
    indices: Tensor
    step: Tensor
    parts: dict[str, Tensor]
    others: dict[str, Tensor] = {}  # noqa: RUF012 - a tuple field, never written to


class Refiner(Part):
    """Maps a guess to a better one; this one returns it as it is.

    A subclass overrides what it needs. Within a training step the order is ``observe``, ``forward``, ``losses``.

    Attributes:
        observes: whether it wants to see the labelled features of the teacher.
        observes_network: whether it wants to see those of the network in training too.
        replaces_alignment: whether it takes the place of a method's own distribution alignment.
    """

    observes: bool = False
    observes_network: bool = False
    replaces_alignment: bool = False

    def observe(
        self,
        images: Tensor,
        features: Tensor | None,
        labels: Tensor,
        teacher: Callable[[Tensor], Tensor],
    ) -> None:
        """See the labelled half of the batch.

        Args:
            images: uint8, (B, C, H, W), the labelled view.
            features: float, (B, D), of these images by the network in training, without gradient; None where a
                method has none and ``observes_network`` is false.
            labels: int64, (B,).
            teacher: the moving average of the network: images to features (B, D).
        """

    def forward(self, guess: Guess) -> Guess:
        """Return the refined guess."""
        return guess

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        """Return further losses by name, weighted, each a scalar.

        Args:
            guess: the refined guess.
            strong: float, (U, D), features of the strong view of the same images, with gradient.
        """
        return {}


class Chain(Refiner):
    """Refiners one after the other; ``chain(a, b)`` refines with a, then with b."""

    def __init__(self, *refiners: Refiner) -> None:
        super().__init__()
        self.refiners = nn.ModuleList(refiners)
        self.observes = any(refiner.observes for refiner in refiners)
        self.observes_network = any(refiner.observes_network for refiner in refiners)
        self.replaces_alignment = any(refiner.replaces_alignment for refiner in refiners)

    def observe(
        self,
        images: Tensor,
        features: Tensor | None,
        labels: Tensor,
        teacher: Callable[[Tensor], Tensor],
    ) -> None:
        """Let every refiner see the labelled half of the batch."""
        for refiner in self.refiners:
            refiner.observe(images, features, labels, teacher)  # type: ignore[operator]

    def forward(self, guess: Guess) -> Guess:
        """Return the guess refined by each in turn."""
        for refiner in self.refiners:
            guess = refiner(guess)
        return guess

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        """Return the losses of all refiners."""
        found: dict[str, Tensor] = {}
        for refiner in self.refiners:
            found |= refiner.losses(guess, strong)  # type: ignore[operator]
        return found


def chain(*refiners: Refiner) -> Refiner:
    """Compose refiners, first one first; without any, a guess stays as it is."""
    return refiners[0] if len(refiners) == 1 else Chain(*refiners)
