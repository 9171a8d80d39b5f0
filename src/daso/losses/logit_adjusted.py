"""Logit adjustment: cross-entropy of logits that carry the class prior."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError
from daso.losses.labeled import LabeledLoss


class LogitAdjusted(LabeledLoss):
    """Labels teach logits to which the log prior of the classes is added, so that the logits need not learn it.

    Menon et al.: *Long-Tail Learning via Logit Adjustment*, ICLR 2021, arXiv 2007.07314, equation 10: the loss is
    the cross-entropy of logits + tau * log(prior), where the prior is the share of each class among the labelled
    images. With a uniform prior it is cross-entropy. The logits themselves are then those of a classifier for
    images of balanced classes: they classify as they are, without a second adjustment at test time.

    Args:
        class_counts: int64, (K,), labelled images of each class, at least 1 each.
        adjustment_strength: tau, >= 0; 0 is cross-entropy.

    Raises:
        OptionError: a class has no labelled image, or a value is out of range.
    """

    paper = "Menon et al., ICLR 2021, arXiv 2007.07314"
    prior: Tensor

    def __init__(self, class_counts: Tensor, *, adjustment_strength: float = 1.0) -> None:
        super().__init__()
        if not 0 <= adjustment_strength < math.inf:
            raise OptionError(
                f"LogitAdjusted: adjustment_strength = {adjustment_strength} is out of range"
            )
        if (class_counts < 1).any():
            raise OptionError(
                f"LogitAdjusted: class_counts = {class_counts.tolist()} must be at least 1 each"
            )
        self.register_buffer("prior", (class_counts.double() / class_counts.sum()).float())
        self.adjustment_strength = adjustment_strength

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        """Return the mean cross-entropy of the adjusted logits."""
        return F.cross_entropy(logits + self.adjustment_strength * self.prior.log(), labels)
