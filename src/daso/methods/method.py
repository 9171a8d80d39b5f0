"""The base class of methods, and the values that a training step exchanges with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from daso.nets.network import Network
from daso.parts import IdleOptions, Part
from daso.refine.guess import Guess

View = Literal["identity", "weak", "strong"]


class Batch(NamedTuple):
    """The images of one training step, in the views that the method names.

    Attributes:
        labeled: uint8 (B, C, H, W), one tensor for each of the method's ``labeled_views``.
        labels: int64, (B,).
        unlabeled: uint8 (U, C, H, W), one tensor for each of the method's ``unlabeled_views``.
        indices: int64, (U,), of the unlabeled images in their pool.
        step: int64, (), steps done so far.
        draws: random numbers that the method's parts drew for this step, by name.
    """

    labeled: tuple[Tensor, ...]
    labels: Tensor
    unlabeled: tuple[Tensor, ...]
    indices: Tensor
    step: Tensor
    draws: dict[str, Tensor] = {}  # noqa: RUF012 - a tuple field, never written to


class PseudoLabels(NamedTuple):
    """The pseudo-labels of a step, for the record; none of them carries a gradient.

    Attributes:
        labels: int64, (U,), by name: ``"final"``, and each part that entered it (``"linear"``,
            ``"semantic"``).
        confidence: float, (U,), probability of the final label.
        mask: float, (U,), weight of each image in the loss; 0: not used.
    """

    labels: dict[str, Tensor]
    confidence: Tensor
    mask: Tensor

    @classmethod
    def of(cls, guess: Guess, mask: Tensor | None = None) -> PseudoLabels:
        """Return the pseudo-labels of a guess; without a mask all are used."""
        confidence, final = guess.probs.max(1)
        labels = {name: probs.argmax(1) for name, probs in guess.parts.items()}
        mask = torch.ones_like(confidence) if mask is None else mask
        return cls({**labels, "final": final}, confidence, mask)


class Step(NamedTuple):
    """The result of a step: weighted losses by name, to be summed, and any pseudo-labels."""

    losses: dict[str, Tensor]
    pseudo_labels: PseudoLabels | None = None


class Method(Part):
    """Maps (network, teacher, batch) to losses. A subclass names its views and writes ``forward``.

    The constructor arguments ``refine``, ``supervised`` and ``terms`` are slots for other parts: a
    refiner of the guesses, the loss on labeled images, further losses. A method without one of
    these arguments does not take such a part.

    Attributes:
        labeled_views, unlabeled_views: the views of a batch, in order.
        learning_rate, schedule: defaults of a training.
        unlabeled_ratio: mu, default number of unlabeled images per labeled image of a step.
        needs_images: whether the method cannot be used on vectors.
        resizes_first: whether its authors resize images to the network's resolution before strong
            augmentation, for data sets whose images are larger.
        uses_teacher: whether the method itself, not only a refiner, evaluates the teacher.
        needs_readout: whether the method learns from the readout of the teacher.
        computed_heads: heads that ``end_step`` writes; they have no gradient.
        unlabeled_options: hyper-parameters of the loss that ``unlabeled_weight`` scales.
        refuses: the reasons why a slot, or an argument of the base class, is missing, by its name.
    """

    kind: ClassVar[str] = "method"
    labeled_views: tuple[View, ...] = ("weak",)
    unlabeled_views: tuple[View, ...] = ()
    learning_rate: float = 0.03
    schedule: Literal["constant", "cosine", "multistep", "one-cycle"] = "constant"
    unlabeled_ratio: int = 2
    needs_images: bool = False
    resizes_first: bool = False
    uses_teacher: ClassVar[bool] = False
    needs_readout: ClassVar[bool] = False
    computed_heads: ClassVar[tuple[str, ...]] = ()
    unlabeled_options: ClassVar[tuple[str, ...]] = ()
    refuses: ClassVar[dict[str, str]] = {}

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        if options.get("unlabeled_weight") == 0:
            yield cls.unlabeled_options, "--unlabeled-weight 0 turns the loss off"

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses of one step.

        Args:
            network: in training mode; its gradient is taken.
            teacher: the moving average of the network; it needs no gradient.
            batch: the images in the views that the class names.
        """
        raise TypeError(f"{type(self).__name__} has no forward method, which computes its losses")

    def end_step(self, network: Network, teacher: Network, batch: Batch) -> None:
        """Look at the networks after the update of a step, on the device."""
