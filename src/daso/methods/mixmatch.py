"""MixMatch: sharpened guesses of two views teach mixtures of labeled and unlabeled images."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import check_range
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.methods.mix import draw_mixup, encode_interleaved, mixup
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner
from daso.refine.sharpen import sharpen


class MixMatch(Method):
    """The sharpened mean guess on two weak views is their soft label; all images are mixed.

    Berthelot et al.: *MixMatch*, NeurIPS 2019, arXiv 1905.02249, algorithm 1 and equations 3 to 11:
    soft cross-entropy on mixtures that started from a labeled image, mean squared error over all
    images and classes on the others.

    Args:
        refine: improves the sharpened guess, from the features of the first view. Its own losses
            need a strong view and are not used.
        temperature: T of sharpening, > 0.
        mixup_alpha: parameter of the Beta distribution of the mixing factor, > 0.
        unlabeled_weight: lambda_u, weight of the loss on unlabeled images, >= 0.
        unlabeled_ramp: share of the training over which *unlabeled_weight* grows linearly from 0,
            0 to 1.

    As in the code of DASO's authors, a step has one mixing factor, and each of the two guesses is a
    pass of its own, in training mode. The mixed batch goes through the network in parts as large as
    the labeled batch, each with its share of labeled rows and its own batch-norm statistics (in one
    part if the number of unlabeled images is not a multiple of the number of labeled images). A
    refiner that observes the network's labeled features gets them from one more pass, without a
    gradient.
    """

    paper = "Berthelot et al., NeurIPS 2019, arXiv 1905.02249"
    unlabeled_views: tuple[View, ...] = ("weak", "weak")
    unlabeled_ratio = 1
    unlabeled_options = ("unlabeled_ramp",)
    refuses: ClassVar = {
        "supervised": "its labeled images are mixed, so their labels are soft",
        "terms": "its labeled images are mixed, so their features have no single label",
    }

    def __init__(
        self,
        total_steps: int,
        *,
        refine: Refiner | None = None,
        temperature: float = 0.5,
        mixup_alpha: float = 0.5,
        unlabeled_weight: float = 100.0,
        unlabeled_ramp: float = 0.016,
    ) -> None:
        super().__init__()
        self.temperature = check_range("temperature", temperature, above=0)
        self.mixup_alpha = check_range("mixup_alpha", mixup_alpha, above=0)
        self.unlabeled_weight = check_range("unlabeled_weight", unlabeled_weight, 0)
        self.unlabeled_ramp = check_range("unlabeled_ramp", unlabeled_ramp, 0, 1)
        self.refine = refine or Refiner()
        self.total_steps = total_steps

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random numbers of the parts, and the factor and partners of the mixtures."""
        drawn = super().draw(labeled, unlabeled, generator)
        return drawn | draw_mixup(self.mixup_alpha, labeled + 2 * unlabeled, generator)

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses ``"labeled"`` and ``"unlabeled"``, and the pseudo-labels."""
        (images,), (first_images, second_images) = batch.labeled, batch.unlabeled
        with torch.no_grad():
            if self.refine.observes:
                labeled = network(images) if self.refine.observes_network else None
                self.refine.observe(images, labeled, batch.labels, teacher)
            first, second = network(first_images), network(second_images)
            linear = (network.classify(first).softmax(1) + network.classify(second).softmax(1)) / 2
            sharp = sharpen(linear, self.temperature)
            guess = self.refine(Guess(sharp, first, batch.indices, batch.step, {"linear": linear}))

        one_hot = F.one_hot(batch.labels, guess.probs.shape[1]).to(guess.probs.dtype)
        targets = mixup(torch.cat([one_hot, guess.probs, guess.probs]), batch.draws)
        inputs = network.normalize(torch.cat([images, first_images, second_images]))
        size = len(images)
        logits = network.classify(encode_interleaved(network, mixup(inputs, batch.draws), size))

        weight = self.unlabeled_weight * ramp(batch.step, self.unlabeled_ramp, self.total_steps)
        losses = {
            "labeled": F.cross_entropy(logits[:size], targets[:size]),
            "unlabeled": weight * F.mse_loss(logits[size:].softmax(1), targets[size:]),
        }
        return Step(losses, PseudoLabels.of(guess))
