"""FixMatch: confident guesses on weak views teach strong views."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from daso.errors import OptionError
from daso.methods.method import (
    Batch,
    Method,
    PseudoLabels,
    Step,
    SupervisedLoss,
    View,
    cross_entropy,
)
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner


class FixMatch(Method):
    """The class guessed on a weak view, where confident, is the target on a strong view of the same image.

    Sohn et al.: *FixMatch*, NeurIPS 2020, arXiv 2001.07685, equations 3 and 4. One forward pass over labelled,
    weak and strong images, so that batch-norm statistics are joint. The loss on unlabelled images is averaged
    over all of them, confident or not.

    Args:
        refine: improves the guess before it is thresholded, e.g. DASO.
        supervised: the loss of logits and labels on labelled images.
        threshold: tau, probability from which a guess teaches, 0 to 1.
        unlabeled_weight: lambda_u, >= 0.

    Raises:
        OptionError: a value is out of range.
    """

    unlabeled_views: tuple[View, ...] = ("weak", "strong")

    def __init__(
        self,
        *,
        refine: Refiner | None = None,
        supervised: SupervisedLoss = cross_entropy,
        threshold: float = 0.95,
        unlabeled_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not (0 <= threshold <= 1 and 0 <= unlabeled_weight < math.inf):
            raise OptionError(
                f"FixMatch: threshold = {threshold} must be in [0, 1], "
                f"unlabeled_weight = {unlabeled_weight} at least 0"
            )
        self.refine = refine or Refiner()
        self.supervised = supervised
        self.threshold = threshold
        self.unlabeled_weight = unlabeled_weight

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        """As the refiner wants it."""
        return self.refine.teacher_uses_batch_statistics

    def describe(self) -> dict[str, list[float]]:
        """Return what the refiner has to show."""
        return self.refine.describe()

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses ``"labeled"``, ``"unlabeled"`` and the refiner's, and the pseudo-labels."""
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        sizes = [len(labeled), len(weak), len(strong)]
        features = network(torch.cat([labeled, weak, strong]))
        labeled_features, weak_features, strong_features = torch.split(features, sizes)
        labeled_logits, weak_logits, strong_logits = torch.split(network.classify(features), sizes)

        self.refine.observe(labeled, labeled_features.detach(), batch.labels, teacher)
        linear = weak_logits.detach().softmax(1)
        guess = self.refine(
            Guess(linear, weak_features.detach(), batch.indices, batch.step, {"linear": linear})
        )
        confidence, pseudo_label = guess.probs.max(1)
        mask = (confidence >= self.threshold).float()
        per_image = F.cross_entropy(strong_logits, pseudo_label, reduction="none")

        losses = {
            "labeled": self.supervised(labeled_logits, batch.labels),
            "unlabeled": self.unlabeled_weight * (mask * per_image).mean(),
            **self.refine.losses(guess, strong_features),
        }
        labels = {name: probs.argmax(1) for name, probs in guess.parts.items()}
        return Step(losses, PseudoLabels({**labels, "final": pseudo_label}, confidence, mask))
