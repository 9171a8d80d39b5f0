"""SimPro: the class distribution of the unlabeled images is estimated, and enters every loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import class_shares
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch
from daso.methods.ramp import never_updated
from daso.refine.guess import Guess

TINY = 1e-12


class SimPro(FixMatch):
    """FixMatch as expectation maximization, with a class distribution of the unlabeled images.

    Du, Han, Huang: *SimPro: A Simple Probabilistic Framework Towards Realistic Long-Tailed
    Semi-Supervised Learning*, ICML 2024, arXiv 2402.13505. The guess about an unlabeled image is
    softmax(z + tau log u) (E-step); labeled images and strong views have the cross-entropy of
    z + tau log a, with the whole guess as target (M-step). The distributions u, of unlabeled
    images, and a, of all, are estimated from the guesses that are used and from labels. The logits
    z are those of a classifier for balanced classes.

    Args:
        class_counts: int64, (K,), labeled images of each class, at least 1 each.
        prior_strength: tau, >= 0; the authors use 2 for 10 classes and 1 for 100.
        prior_period: steps after which u and a are estimated again, >= 1.
        prior_decay: share of the former estimate that is kept, 0 to 1.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`, without its loss on labels.

    Departures from the authors' code: one strong view of an unlabeled image and one weak view of a
    labeled image, where theirs has two and a strong one. As there, u is uniform at first, and the
    loss on labels is scaled by the number of passes over labeled images, divided by that over
    unlabeled ones.
    """

    paper = "Du et al., ICML 2024, arXiv 2402.13505"
    balances = True
    unlabeled_options = ("threshold",)
    refuses: ClassVar = {"supervised": "its loss on labels carries the estimated distribution"}

    def __init__(
        self,
        class_counts: Tensor,
        num_unlabeled: int,
        *,
        prior_strength: float = 2.0,
        prior_period: int = 500,
        prior_decay: float = 0.9,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.prior_strength = check_range("prior_strength", prior_strength, 0)
        self.prior_period = check_range("prior_period", prior_period, 1)
        self.prior_decay = check_range("prior_decay", prior_decay, 0, 1)
        self.labeled_per_unlabeled = int(class_counts.sum()) / max(1, num_unlabeled)
        classes = len(class_counts)
        self.unlabeled_share = nn.Buffer(torch.full((classes,), 1 / classes))
        self.share = nn.Buffer(class_shares(class_counts))
        self.guessed = nn.Buffer(torch.zeros(classes))
        self.labeled = nn.Buffer(torch.zeros(classes))

    @classmethod
    def remarks(cls, options: Mapping[str, Any], steps: int) -> Iterator[str]:
        return never_updated("SimPro's estimate", "prior_period", options, steps)

    def describe(self) -> dict[str, list[float]]:
        """Return the estimated distributions of the unlabeled and of all images."""
        estimates = {"unlabeled_share": self.unlabeled_share, "share": self.share}
        return {**{n: each.tolist() for n, each in estimates.items()}, **super().describe()}

    def shift(self, share: Tensor) -> Tensor:
        """Return what is added to logits for a class distribution, float (K,)."""
        return (share**self.prior_strength + TINY).log()

    def improve(self, guess: Guess) -> Guess:
        guess = super().improve(guess)
        probs = (guess.probs.log() + self.shift(self.unlabeled_share)).softmax(1)
        return guess._replace(probs=probs)

    def labeled_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        self.labeled.add_(F.one_hot(batch.labels, len(self.labeled)).sum(0))
        scale = self.labeled_per_unlabeled * len(batch.unlabeled[0]) / len(batch.labels)
        return scale * F.cross_entropy(logits + self.shift(self.share), batch.labels)

    def unlabeled_losses(self, logits: Tensor, guess: Guess, mask: Tensor) -> dict[str, Tensor]:
        shifted = logits + self.shift(self.share)
        per_image = F.cross_entropy(shifted, guess.probs, reduction="none")
        with torch.no_grad():
            self.guessed.add_((mask[:, None] * guess.probs).sum(0))
            self._estimate((guess.step + 1) % self.prior_period == 0)
        return {"unlabeled": self.unlabeled_weight * (mask * per_image).mean()}

    def _estimate(self, renew: Tensor) -> None:
        """Move the estimates towards what was counted, and count anew, if *renew* is true."""
        rate = renew * (1 - self.prior_decay)
        counted = self.labeled + self.guessed
        found = self.guessed / (self.guessed.sum() + 1)
        self.unlabeled_share.add_(rate * (found - self.unlabeled_share))
        self.share.add_(rate * (counted / counted.sum() - self.share))
        self.guessed.mul_(~renew)
        self.labeled.mul_(~renew)
