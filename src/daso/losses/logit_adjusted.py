"""Logit adjustment: cross-entropy of logits that carry the class prior."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import class_shares
from daso.losses.labeled import LabeledLoss


class LogitAdjusted(LabeledLoss):
    """Add the log prior of the classes to the logits in training, so they need not learn it.

    Menon et al.: *Long-Tail Learning via Logit Adjustment*, ICLR 2021, arXiv 2007.07314, equation
    10: the loss is the cross-entropy of logits + tau * log(prior), where the prior is the share of
    each class among the labeled images. The logits themselves are then those of a classifier for
    balanced classes: they need no second adjustment at test time.

    Args:
        class_counts: int64, (K,), labeled images of each class, at least 1 each.
        adjustment_strength: tau, >= 0; 0 is cross-entropy.

    Raises:
        OptionError: a class has no labeled image, or a value is out of range.
    """

    paper = "Menon et al., ICLR 2021, arXiv 2007.07314"
    balances = True

    def __init__(self, class_counts: Tensor, *, adjustment_strength: float = 1.0) -> None:
        super().__init__()
        self.adjustment_strength = check_range("adjustment_strength", adjustment_strength, 0)
        self.prior = nn.Buffer(class_shares(class_counts))

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        return F.cross_entropy(logits + self.adjustment_strength * self.prior.log(), labels)
