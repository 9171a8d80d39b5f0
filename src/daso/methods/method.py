"""What a training step gives a method and what it gets back."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from daso.nets.network import Network
from daso.parts import Part

View = Literal["identity", "weak", "strong"]


class Batch(NamedTuple):
    """The images of one training step, already in the views that the method names.

    Attributes:
        labeled: uint8 (B, C, H, W), one tensor for each of the method's ``labeled_views``.
        labels: int64, (B,).
        unlabeled: uint8 (U, C, H, W), one tensor for each of the method's ``unlabeled_views``.
        indices: int64, (U,), of the unlabelled images in their pool.
        step: int64, (), steps done so far.
        draws: what the method's parts drew for this step, by name.
    """

    labeled: tuple[Tensor, ...]
    labels: Tensor
    unlabeled: tuple[Tensor, ...]
    indices: Tensor
    step: Tensor
    draws: dict[str, Tensor] = {}  # noqa: RUF012 - a tuple field, never written to


class PseudoLabels(NamedTuple):
    """The pseudo-labels of a step, for the record; nothing in it carries a gradient.

    Attributes:
        labels: int64, (U,), by name: ``"final"``, and each part that entered it (``"linear"``, ``"semantic"``).
        confidence: float, (U,), probability of the final one.
        mask: float, (U,), the weight with which each one teaches; 0: not at all.
    """

    labels: dict[str, Tensor]
    confidence: Tensor
    mask: Tensor


class Step(NamedTuple):
    """What a method returns: its losses by name, weighted, to be summed; and its pseudo-labels if it has any."""

    losses: dict[str, Tensor]
    pseudo_labels: PseudoLabels | None = None


class Method(Part):
    """Maps (network, teacher, batch) to losses. A subclass names its views and writes ``forward``.

    Constructor arguments called ``refine``, ``supervised`` and ``terms`` are places for other parts: a refiner of
    the guesses, the loss on labelled images, further losses. A method without such an argument takes no such part;
    ``refuses`` may say why, by the argument's name.

    Attributes:
        labeled_views, unlabeled_views: the views of a batch, in order.
        learning_rate, schedule: what a training takes where it is not told.
        unlabeled_ratio: mu, unlabelled images per labelled one in a step, where a training is not told.
        needs_images: whether it does with images what cannot be done with vectors.
        resizes_first: whether its authors resize images to the network's resolution before the operations of strong
            views, where a source has one of its own.
    """

    labeled_views: tuple[View, ...] = ("weak",)
    unlabeled_views: tuple[View, ...] = ()
    learning_rate: float = 0.03
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    unlabeled_ratio: int = 2
    needs_images: bool = False
    resizes_first: bool = False
    refuses: ClassVar[dict[str, str]] = {}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses of one step.

        Args:
            network: in training; its gradient is taken.
            teacher: its moving average; it needs no gradient.
            batch: the images in the views that the class names.
        """
        raise TypeError(
            f"{type(self).__name__} does not say how it learns: it has no forward method"
        )
