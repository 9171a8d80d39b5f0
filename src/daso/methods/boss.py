"""BOSS: frequent guesses need more confidence, and weigh less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError
from daso.losses.labeled import LabeledLoss
from daso.methods.fixmatch import FixMatch
from daso.refine.guess import Refiner
from daso.terms.term import Term


class BOSS(FixMatch):
    """FixMatch whose threshold is lower, and whose weight is greater, for classes that the batch has few guesses of.

    Smith, Conovaloff: *Building One-Shot Semi-supervised (BOSS) Learning up to Fully Supervised Performance*,
    Frontiers in Artificial Intelligence 2022, arXiv 2006.09363. Of it, as in the comparison of the DASO paper
    (supplement C.3, equations 12 and 13), only the balancing of pseudo-labels: with c_k guesses of class k in the
    batch, confident or not, the threshold of class k is tau - delta (1 - c_k / max_j c_j), and a guess that
    reaches it weighs 1 / c_k, scaled so that those that teach weigh 1 on average.

    Args:
        num_classes: K.
        threshold_range: delta, how much lower the threshold of a class without guesses is, 0 to *threshold*.
        weights_count: what c_k of the weights counts: ``"all"`` guesses, as the DASO paper's notation has it, or the
            ``"confident"`` ones, as the code of BOSS's authors does.
        refine, supervised, terms, threshold, unlabeled_weight, weak_pass: as in FixMatch.

    Raises:
        OptionError: a value is out of range.

    DASO's authors did not publish their code of BOSS.
    """

    paper = "Smith & Conovaloff 2020, arXiv 2006.09363"

    def __init__(
        self,
        num_classes: int,
        *,
        threshold_range: float = 0.25,
        weights_count: Literal["all", "confident"] = "all",
        refine: Refiner | None = None,
        supervised: LabeledLoss | None = None,
        terms: Sequence[Term] = (),
        threshold: float = 0.95,
        unlabeled_weight: float = 1.0,
        weak_pass: Literal["joint", "apart"] = "joint",
    ) -> None:
        super().__init__(
            refine=refine,
            supervised=supervised,
            terms=terms,
            threshold=threshold,
            unlabeled_weight=unlabeled_weight,
            weak_pass=weak_pass,
        )
        if not 0 <= threshold_range <= self.threshold:
            raise OptionError(
                f"BOSS: threshold_range = {threshold_range} must be in [0, {self.threshold}]"
            )
        if weights_count not in ("all", "confident"):
            raise OptionError(f"BOSS: weights_count = {weights_count!r} must be all or confident")
        self.num_classes = num_classes
        self.threshold_range = threshold_range
        self.weights_count = weights_count

    def weigh(self, confidence: Tensor, pseudo_label: Tensor) -> Tensor:
        """Return the weight with which each guess teaches, float (U,), of which those above 0 have the mean 1."""
        guesses = F.one_hot(pseudo_label, self.num_classes)
        counts = guesses.sum(0)
        threshold = self.threshold - self.threshold_range * (1 - counts / counts.max())
        mask = (confidence >= threshold[pseudo_label]).float()
        if self.weights_count == "confident":
            counts = (guesses * mask[:, None]).sum(0)
        weights = mask / counts[pseudo_label].clamp(min=1)
        return weights * mask.sum() / weights.sum().clamp(min=1e-12)
