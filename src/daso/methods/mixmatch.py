"""MixMatch: sharpened guesses of two views teach mixtures of labelled and unlabelled images."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.methods.mix import draw_mixup, encode_interleaved, mixup
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner
from daso.refine.sharpen import sharpen


class MixMatch(Method):
    """The sharpened mean guess on two weak views is their soft label; all images and labels are mixed, and learnt.

    Berthelot et al.: *MixMatch*, NeurIPS 2019, arXiv 1905.02249, algorithm 1 and equations 3 to 11: soft
    cross-entropy on mixtures that started from a labelled image, mean squared error over all images and classes on
    the others.

    Args:
        total_steps: of the training.
        refine: improves the sharpened guess; it sees the features of the first view. Its own losses need a strong
            view, which there is none of, and are left out.
        temperature: T of sharpening, > 0.
        mixup_alpha: parameter of the Beta distribution of the mixing factor, > 0.
        unlabeled_weight: lambda_u, >= 0.
        unlabeled_ramp: share of the training over which *unlabeled_weight* grows linearly from 0, 0 to 1.

    Raises:
        OptionError: a value is out of range.

    As in the code of DASO's authors, there is one mixing factor for a step; the two guesses are passes of their own,
    in training mode; and the mixed batch goes through the network in parts as large as the labelled batch, each
    with its share of labelled rows and its own batch-norm statistics (all at once where the number of unlabelled
    images is no multiple of that of the labelled ones). A refiner that asks for the labelled features of the network
    gets them from one more pass, without a gradient.
    """

    paper = "Berthelot et al., NeurIPS 2019, arXiv 1905.02249"
    unlabeled_views: tuple[View, ...] = ("weak", "weak")
    unlabeled_ratio = 1
    refuses: ClassVar = {
        "supervised": "its labelled images are mixed, so their labels are soft",
        "terms": "its labelled images are mixed, so their features have no single label",
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
        for name, value, valid in (
            ("temperature", temperature, 0 < temperature < math.inf),
            ("mixup_alpha", mixup_alpha, 0 < mixup_alpha < math.inf),
            ("unlabeled_weight", unlabeled_weight, 0 <= unlabeled_weight < math.inf),
            ("unlabeled_ramp", unlabeled_ramp, 0 <= unlabeled_ramp <= 1),
        ):
            if not valid:
                raise OptionError(f"MixMatch: {name} = {value!r} is out of range")
        self.refine = refine or Refiner()
        self.total_steps = total_steps
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.unlabeled_weight = unlabeled_weight
        self.unlabeled_ramp = unlabeled_ramp

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what the parts drew, and the factor and the partners of the mixtures."""
        drawn = super().draw(labeled, unlabeled, generator)
        return drawn | draw_mixup(self.mixup_alpha, labeled + 2 * unlabeled, generator)

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses ``"labeled"`` and ``"unlabeled"``, and the pseudo-labels."""
        (images,), (first_images, second_images) = batch.labeled, batch.unlabeled
        with torch.no_grad():
            if self.refine.observes:
                own = network(images) if self.refine.observes_network else None
                self.refine.observe(images, own, batch.labels, teacher)
            first, second = network(first_images), network(second_images)
            linear = (network.classify(first).softmax(1) + network.classify(second).softmax(1)) / 2
            sharp = sharpen(linear, self.temperature)
            guess = self.refine(Guess(sharp, first, batch.indices, batch.step, {"linear": linear}))
            confidence, pseudo_label = guess.probs.max(1)

        one_hot = F.one_hot(batch.labels, guess.probs.shape[1]).float()
        targets = mixup(torch.cat([one_hot, guess.probs, guess.probs]), batch.draws)
        mixed = mixup(
            network.normalize(torch.cat([images, first_images, second_images])), batch.draws
        )
        size = len(images)
        logits = network.classify(encode_interleaved(network, mixed, size))

        weight = self.unlabeled_weight * ramp(batch.step, self.unlabeled_ramp, self.total_steps)
        losses = {
            "labeled": F.cross_entropy(logits[:size], targets[:size]),
            "unlabeled": weight * F.mse_loss(logits[size:].softmax(1), targets[size:]),
        }
        labels = {name: probs.argmax(1) for name, probs in guess.parts.items()}
        everyone = torch.ones_like(confidence)
        return Step(losses, PseudoLabels({**labels, "final": pseudo_label}, confidence, everyone))
