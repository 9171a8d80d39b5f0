"""The guess about a batch of unlabeled images, and the refiners that map one guess to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from daso.parts import Part


class Guess(NamedTuple):
    """Class probabilities of U unlabeled images; none of the tensors carries a gradient.

    Attributes:
        probs: float, (U, K), class probabilities.
        features: float, (U, D), of the view that was guessed from.
        indices: int64, (U,), of the images in the unlabeled pool.
        step: int64, (), training steps done so far.
        parts: the probabilities (U, K) that entered the guess, by name (``"linear"``,
            ``"semantic"``).
        others: the probabilities (U, K) that other heads give the same images, by name. A refiner
            may treat them as it treats ``probs``, but does not count them in its state.
    """

    probs: Tensor
    features: Tensor
    indices: Tensor
    step: Tensor
    parts: dict[str, Tensor]
    others: dict[str, Tensor] = {}  # noqa: RUF012 - a tuple field, never written to


class Refiner(Part):
    """Maps a guess to a better one; this one returns it unchanged.

    A subclass overrides what it needs. The order in a training step is ``observe``, ``forward``,
    ``losses``.

    Attributes:
        observes: whether it needs the teacher's features of the labeled images.
        observes_network: whether it needs those of the network in training.
        replaces_alignment: whether it replaces a method's own distribution alignment.
    """

    kind: ClassVar[str] = "refiner"
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
        """Record the labeled half of the batch.

        Args:
            images: uint8, (B, C, H, W), the labeled view.
            features: float, (B, D), of these images by the network in training, without gradient;
                may be None where ``observes_network`` is false.
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
    """Refiners in sequence; ``chain(a, b)`` refines with a, then with b."""

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
        for refiner in self.refiners:
            refiner.observe(images, features, labels, teacher)  # type: ignore[operator]

    def forward(self, guess: Guess) -> Guess:
        for refiner in self.refiners:
            guess = refiner(guess)
        return guess

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for refiner in self.refiners:
            losses |= refiner.losses(guess, strong)  # type: ignore[operator]
        return losses


def chain(*refiners: Refiner) -> Refiner:
    """Compose refiners in order; without any, a guess stays unchanged."""
    return refiners[0] if len(refiners) == 1 else Chain(*refiners)
