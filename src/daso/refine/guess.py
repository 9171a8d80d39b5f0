"""The belief about a batch of unlabelled images, and the refiners that map one belief to the next.

Shape letters: B labelled images of a batch, U unlabelled ones, K classes, D features, L queue length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from torch import Tensor, nn


class Guess(NamedTuple):
    """What is believed about the classes of U unlabelled images; nothing in it carries a gradient.

    Attributes:
        probs: float, (U, K), class probabilities.
        features: float, (U, D), of the view that was guessed from.
        indices: int64, (U,), of the images in the unlabelled pool.
        step: int64, (), training steps done so far.
        parts: the probabilities (U, K) that entered the guess, by name (``"linear"``, ``"semantic"``).
    """

    probs: Tensor
    features: Tensor
    indices: Tensor
    step: Tensor
    parts: dict[str, Tensor]


class Refiner(nn.Module):
    """Maps a guess to a better one; this one returns it as it is.

    A subclass overrides what it needs. Its only state is buffers of fixed shape, so that a checkpoint, a
    device and a compiled graph take them as they are. Within a training step the order is
    ``observe``, ``forward``, ``losses``.

    Attributes:
        teacher_uses_batch_statistics: whether the teacher that ``observe`` is given normalises by the statistics
            of its batch, as in training, or by running ones.
    """

    teacher_uses_batch_statistics: bool = True

    def observe(
        self, images: Tensor, features: Tensor, labels: Tensor, teacher: Callable[[Tensor], Tensor]
    ) -> None:
        """See the labelled half of the batch.

        Args:
            images: uint8, (B, C, H, W), the labelled view.
            features: float, (B, D), of these images by the network in training, without gradient.
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

    def describe(self) -> dict[str, list[float]]:
        """Return the numbers of the state that a reader of the run wants to see, by name."""
        return {}


class Chain(Refiner):
    """Refiners one after the other; ``chain(a, b)`` refines with a, then with b."""

    def __init__(self, *refiners: Refiner) -> None:
        super().__init__()
        self.refiners = nn.ModuleList(refiners)
        self.teacher_uses_batch_statistics = all(r.teacher_uses_batch_statistics for r in refiners)

    def _in_order(self) -> Iterator[Refiner]:
        return (cast(Refiner, refiner) for refiner in self.refiners)

    def observe(
        self, images: Tensor, features: Tensor, labels: Tensor, teacher: Callable[[Tensor], Tensor]
    ) -> None:
        """Let every refiner see the labelled half of the batch."""
        for refiner in self._in_order():
            refiner.observe(images, features, labels, teacher)

    def forward(self, guess: Guess) -> Guess:
        """Return the guess refined by each in turn."""
        for refiner in self._in_order():
            guess = refiner(guess)
        return guess

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        """Return the losses of all refiners."""
        return {
            name: loss for refiner in self._in_order() for name, loss in refiner.losses(guess, strong).items()
        }

    def describe(self) -> dict[str, list[float]]:
        """Return the numbers of all refiners."""
        return {name: value for refiner in self._in_order() for name, value in refiner.describe().items()}


def chain(*refiners: Refiner) -> Refiner:
    """Compose refiners, first one first."""
    return refiners[0] if len(refiners) == 1 else Chain(*refiners)
