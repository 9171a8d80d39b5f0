"""FreeMatch: thresholds that follow the confidence of the network, class by class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.methods.fixmatch import FixMatch
from daso.refine.guess import Guess

TINY = 1e-12


class FreeMatch(FixMatch):
    """FixMatch with a threshold that rises with the confidence, and is lower for rare guesses.

    Wang et al.: *FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning*, ICLR 2023,
    arXiv 2205.07246. Running means over weak views hold the confidence t, the guess p and the
    share h of guesses of each class. A guess of class k is used from t p_k / max_j p_j on
    (equations 5 to 8). The fairness loss (equations 9 to 12) compares p / h with the same ratio of
    the strong views whose guess is used.

    Args:
        fairness_weight: w_f, weight of the fairness loss, >= 0.
        mean_decay: decay of the running means, 0 to 1.
        threshold: highest t, 0 to 1; 1: no limit, as in the paper.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`.
    """

    paper = "Wang et al., ICLR 2023, arXiv 2205.07246"
    unlabeled_options = ("threshold",)

    def __init__(
        self,
        num_classes: int,
        *,
        fairness_weight: float = 0.01,
        mean_decay: float = 0.999,
        threshold: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(threshold=threshold, **shared)
        self.fairness_weight = check_range("fairness_weight", fairness_weight, 0)
        self.mean_decay = check_range("mean_decay", mean_decay, 0, 1)
        self.confidence = nn.Buffer(torch.full((1,), 1 / num_classes))
        self.mean_guess = nn.Buffer(torch.full((num_classes,), 1 / num_classes))
        self.guess_share = nn.Buffer(torch.full((num_classes,), 1 / num_classes))

    def describe(self) -> dict[str, list[float]]:
        """Return the threshold of each class."""
        return {"class_threshold": self.thresholds().tolist(), **super().describe()}

    def thresholds(self) -> Tensor:
        """Return the threshold of each class, float (K,)."""
        return self.confidence.clamp(max=self.threshold) * self.mean_guess / self.mean_guess.max()

    def weigh(self, guess: Guess) -> Tensor:
        """Return 1 for each guess that reaches the threshold of its class, else 0, float (U,)."""
        confidence, pseudo_label = guess.probs.max(1)
        rate = 1 - self.mean_decay
        self.confidence.lerp_(confidence.mean().to(self.confidence), rate)
        self.mean_guess.lerp_(guess.probs.mean(0).to(self.mean_guess), rate)
        share = F.one_hot(pseudo_label, len(self.guess_share)).to(self.guess_share).mean(0)
        self.guess_share.lerp_(share, rate)
        return (confidence >= self.thresholds()[pseudo_label]).to(confidence.dtype)

    def unlabeled_losses(self, logits: Tensor, guess: Guess, mask: Tensor) -> dict[str, Tensor]:
        """Return the losses ``"unlabeled"`` and ``"fairness"``."""
        losses = super().unlabeled_losses(logits, guess, mask)
        if not self.fairness_weight:
            return losses
        probs = logits.softmax(1)
        shares = (mask[:, None] * F.one_hot(probs.argmax(1), probs.shape[1])).sum(0)
        # A ratio to no guesses at all is 0, as in the authors' code.
        ratio = (mask[:, None] * probs).sum(0) * torch.where(shares > 0, 1 / shares, 0)
        ratio = ratio / ratio.sum().clamp(min=TINY)
        target = self.mean_guess / self.guess_share.clamp(min=TINY)
        target = target / target.sum()
        fairness = (target * (ratio + TINY).log()).sum() * (mask.sum() > 0)
        return {**losses, "fairness": self.fairness_weight * fairness}
