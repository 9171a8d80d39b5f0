"""Pseudo-Label: confident guesses teach the very view that they were made on."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from daso.errors import check_range
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner


class PseudoLabel(Method):
    """The class guessed on a weak view, if confident, is the target on that same view.

    Lee: *Pseudo-Label*, ICML 2013 workshop on challenges in representation learning, equations 14
    to 16. The loss on unlabeled images is averaged over all of them, confident or not.

    Args:
        refine: improves the guess before it is thresholded. Its own losses compare two views and
            are not used.
        supervised: the loss on labeled images, of logits and labels.
        threshold: tau, probability from which a guess is used, 0 to 1.
        unlabeled_weight: weight of the loss on unlabeled images, >= 0.
        unlabeled_ramp: share of the training over which *unlabeled_weight* grows linearly from 0,
            0 to 1.

    Departures from the paper: the threshold and the length of the ramp are those of the DASO
    authors' code, in which nothing refines these guesses.
    """

    paper = "Lee, ICML 2013 workshop"
    unlabeled_views: tuple[View, ...] = ("weak",)
    unlabeled_ratio = 1
    unlabeled_options = ("threshold", "unlabeled_ramp")
    refuses: ClassVar = {"terms": "it has no strong view, which terms need"}

    def __init__(
        self,
        total_steps: int,
        *,
        refine: Refiner | None = None,
        supervised: LabeledLoss | None = None,
        threshold: float = 0.95,
        unlabeled_weight: float = 1.0,
        unlabeled_ramp: float = 0.4,
    ) -> None:
        super().__init__()
        self.threshold = check_range("threshold", threshold, 0, 1)
        self.unlabeled_weight = check_range("unlabeled_weight", unlabeled_weight, 0)
        self.unlabeled_ramp = check_range("unlabeled_ramp", unlabeled_ramp, 0, 1)
        self.refine = refine or Refiner()
        self.supervised = supervised or LabeledLoss()
        self.total_steps = total_steps

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses ``"labeled"`` and ``"unlabeled"``, and the pseudo-labels."""
        (images,), (weak_images,) = batch.labeled, batch.unlabeled
        features = network(torch.cat([images, weak_images]))
        labeled, weak = torch.split(features, [len(images), len(weak_images)])
        logits = network.classify(weak)

        self.refine.observe(images, labeled.detach(), batch.labels, teacher)
        with torch.no_grad():
            linear = logits.softmax(1)
            guess = Guess(linear, weak.detach(), batch.indices, batch.step, {"linear": linear})
            guess = self.refine(guess)
            confidence, pseudo_label = guess.probs.max(1)
            mask = (confidence >= self.threshold).to(confidence.dtype)
        per_image = F.cross_entropy(logits, pseudo_label, reduction="none")

        weight = self.unlabeled_weight * ramp(batch.step, self.unlabeled_ramp, self.total_steps)
        losses = {
            "labeled": self.supervised(network.classify(labeled), batch.labels, batch.step),
            "unlabeled": weight * (mask * per_image).mean(),
        }
        return Step(losses, PseudoLabels.of(guess, mask))
