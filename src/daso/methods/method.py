"""What a training step gives a method and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from daso.nets.network import Network

View = Literal["identity", "weak", "strong"]
SupervisedLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (B, K) and labels (B,) to a scalar."""


class Batch(NamedTuple):
    """The images of one training step, already in the views that the method names.

    Attributes:
        labeled: uint8 (B, C, H, W), one tensor for each of the method's ``labeled_views``.
        labels: int64, (B,).
        unlabeled: uint8 (U, C, H, W), one tensor for each of the method's ``unlabeled_views``.
        indices: int64, (U,), of the unlabelled images in their pool.
        step: int64, (), steps done so far.
    """

    labeled: tuple[Tensor, ...]
    labels: Tensor
    unlabeled: tuple[Tensor, ...]
    indices: Tensor
    step: Tensor


class PseudoLabels(NamedTuple):
    """The pseudo-labels of a step, for the record; nothing in it carries a gradient.

    Attributes:
        labels: int64, (U,), by name: ``"final"``, and each part that entered it (``"linear"``, ``"semantic"``).
        confidence: float, (U,), probability of the final one.
        mask: float, (U,), the weight with which each one teaches, 0 to 1.
    """

    labels: dict[str, Tensor]
    confidence: Tensor
    mask: Tensor


class Step(NamedTuple):
    """What a method returns: its losses by name, weighted, to be summed; and its pseudo-labels if it has any."""

    losses: dict[str, Tensor]
    pseudo_labels: PseudoLabels | None = None


class Method(nn.Module):
    """Maps (network, teacher, batch) to losses. A subclass names its views and writes ``forward``.

    A constructor's positional arguments are facts of the run (``num_classes``, ``dim``, ``class_counts``,
    ``total_steps``, ``num_unlabeled``), which the builder supplies by name; its keyword-only arguments are
    hyper-parameters, which become options of the command line. State is buffers of fixed shape.
    """

    labeled_views: tuple[View, ...] = ("weak",)
    unlabeled_views: tuple[View, ...] = ()
    learning_rate: float = 0.03
    schedule: Literal["constant", "cosine", "multistep"] = "constant"

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        """Whether the teacher normalises by the statistics of its batch, as in training, or by running ones."""
        return True

    def describe(self) -> dict[str, list[float]]:
        """Return the numbers of the method's state that a reader of the run wants to see, by name."""
        return {}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses of one step.

        Args:
            network: in training; its gradient is taken.
            teacher: its moving average; it needs no gradient.
            batch: the images in the views that the class names.
        """
        raise TypeError(f"{type(self).__name__} does not say how it learns: it has no forward method")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, K) and labels (B,)."""
    return F.cross_entropy(logits, labels)
