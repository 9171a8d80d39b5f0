"""CoSSL: a classifier learned apart from the features, on enhanced features of rare classes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import check_counts
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch, Step
from daso.nets.network import Network
from daso.refine.guess import Guess

HEAD = "enhanced"


class CoSSL(FixMatch):
    """FixMatch whose guesses come from a balanced classifier on the teacher's features.

    Fan, Dai, Kukleva, Schiele: *CoSSL: Co-Learning of Representation and Classifier for Imbalanced
    Semi-Supervised Learning*, CVPR 2022, arXiv 2112.04564. The classifier learns the labels in
    equal shares of all classes. An image of class y, with probability (N_max - N_y) / N_max, enters
    as r z + (1 - r) u: its feature, that of any other image, and a ratio r, uniform from a bound to
    1; the label stays y. No gradient of this loss reaches the encoder. From a share of the training
    on, the classifier gives the guesses that the encoder learns from. Its average classifies.

    Args:
        class_counts: int64, (K,), N_k, labeled images of each class, at least 1 each.
        colearning_start: share of the training after which the classifier gives the guesses, 0 to
            1; the authors start after 400 of 500 epochs.
        least_ratio: least r, 0 to 1.
        threshold: tau, probability from which a guess is used, 0 to 1.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`, without its terms.

    Departures from the authors' code: classes get equal shares by weights of the labeled images,
    not by a second, balanced batch; these images are in weak views, theirs in strong ones; the
    other image is one of the same step; the classifier learns from the first step on, not for ten
    epochs on fixed features before it gives guesses; one strong view, where theirs has two.

    Raises:
        OptionError: a class has no labeled image, or a value is out of range.
    """

    paper = "Fan et al., CVPR 2022, arXiv 2112.04564"
    balances = True
    uses_teacher = True
    unlabeled_options = ("threshold", "colearning_start")
    refuses: ClassVar = {"terms": "it has a second head already"}
    output = HEAD
    teacher_uses_batch_statistics = False

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        *,
        colearning_start: float = 0.8,
        least_ratio: float = 0.6,
        threshold: float = 0.95,
        **shared: Any,
    ) -> None:
        super().__init__(threshold=threshold, **shared)
        self.colearning_start = check_range("colearning_start", colearning_start, 0, 1)
        self.least_ratio = check_range("least_ratio", least_ratio, 0, 1)
        check_counts(class_counts)
        self.start = int(colearning_start * total_steps)
        self.weight = nn.Buffer(class_counts.sum() / (len(class_counts) * class_counts))
        self.enhanced_share = nn.Buffer(1 - class_counts / class_counts.max())

    @property
    def heads(self) -> dict[str, int]:
        return {HEAD: len(self.weight), **super().heads}

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return, for each labeled image, three numbers in [0, 1).

        They say whether its feature is enhanced, by which other image, and with which ratio.
        """
        drawn = super().draw(labeled, unlabeled, generator)
        return drawn | {"cossl": torch.rand(3, labeled, generator=generator)}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses of FixMatch and ``"classifier"``."""
        (images,), (weak, _) = batch.labeled, batch.unlabeled
        with torch.no_grad():
            features = teacher(torch.cat([images, weak]))
            self._belief = network.classify(features[len(images) :], HEAD).softmax(1)
        step = super().forward(network, teacher, batch)
        step.losses["classifier"] = self._classifier_loss(network, features, batch)
        return step

    def improve(self, guess: Guess) -> Guess:
        learned = guess.step >= self.start
        probs = torch.where(learned, self._belief.to(guess.probs.dtype), guess.probs)
        return super().improve(guess._replace(probs=probs))

    def _classifier_loss(self, network: Network, features: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the classifier on features of the labeled and the weak images."""
        chance, other, ratio = batch.draws["cossl"]
        ratio = self.least_ratio + (1 - self.least_ratio) * ratio
        ratio = torch.where(chance < self.enhanced_share[batch.labels], ratio, 1)[:, None]
        others = features[(other * len(features)).long()]
        mixed = ratio * features[: len(batch.labels)] + (1 - ratio) * others
        logits = network.classify(mixed.to(features.dtype), HEAD)
        loss = F.cross_entropy(logits, batch.labels, reduction="none")
        return (self.weight[batch.labels] * loss).mean()
