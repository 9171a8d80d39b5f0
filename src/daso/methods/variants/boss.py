"""BOSS: frequent guesses need more confidence, and weigh less."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from daso.errors import check_choice, check_range
from daso.methods.fixmatch import FixMatch
from daso.refine.guess import Guess


class BOSS(FixMatch):
    """FixMatch with a lower threshold and a greater weight for classes that are rarely guessed.

    Smith, Conovaloff: *Building One-Shot Semi-supervised (BOSS) Learning up to Fully Supervised
    Performance*, Frontiers in Artificial Intelligence 2022, arXiv 2006.09363. As in the comparison
    of the DASO paper (supplement C.3, equations 12 and 13), only the balancing of pseudo-labels is
    used: with c_k guesses of class k in the batch, confident or not, the threshold of class k is
    tau - delta (1 - c_k / max_j c_j). A guess that reaches it weighs 1 / c_k, scaled so that the
    mean weight of the guesses that are used is 1.

    Args:
        threshold_range: delta, how much lower the threshold of a class without guesses is, from 0
            to *threshold*.
        weights_count: guesses that c_k counts in the weights: ``"all"``, as in the notation of the
            DASO paper, or the ``"confident"`` ones, as in the code of BOSS's authors.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`; *threshold* is that of the most
            frequently guessed class.

    DASO's authors did not publish their code of BOSS.
    """

    paper = "Smith & Conovaloff 2020, arXiv 2006.09363"
    unlabeled_options = ("threshold", "threshold_range", "weights_count")

    def __init__(
        self,
        num_classes: int,
        *,
        threshold_range: float = 0.25,
        weights_count: Literal["all", "confident"] = "all",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.threshold_range = check_range("threshold_range", threshold_range, 0, self.threshold)
        self.weights_count = check_choice("weights_count", weights_count, ("all", "confident"))
        self.num_classes = num_classes

    def weigh(self, guess: Guess) -> Tensor:
        """Return the weight of each guess, float (U,); those above 0 have the mean 1."""
        confidence, pseudo_label = guess.probs.max(1)
        guesses = F.one_hot(pseudo_label, self.num_classes)
        counts = guesses.sum(0)
        threshold = self.threshold - self.threshold_range * (1 - counts / counts.max())
        mask = (confidence >= threshold[pseudo_label]).to(confidence.dtype)
        if self.weights_count == "confident":
            counts = (guesses * mask[:, None]).sum(0)
        weights = mask / counts[pseudo_label].clamp(min=1)
        return weights * mask.sum() / weights.sum().clamp(min=1e-12)
