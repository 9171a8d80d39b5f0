"""LDAM with deferred re-weighting: rare classes keep a wider margin."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError
from daso.losses.class_balanced import effective_number_weights
from daso.losses.labeled import LabeledLoss


class LDAM(LabeledLoss):
    """A label counts as learned when its logit leads by a margin, wider for rare classes, which also weigh more.

    Cao et al.: *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss*, NeurIPS 2019,
    arXiv 1906.07413, sections 3.2 and 3.3 (LDAM-DRW): the margin of class k is proportional to n_k^(-1/4), the
    rarest class has the greatest. The loss is the cross-entropy of scale * (logits - margin of the true class),
    averaged with the class weights of effective numbers: sum of weight times loss over sum of weights.

    Args:
        class_counts: int64, (K,), labelled images of each class, at least 1 each.
        total_steps: of the training.
        max_margin: margin of the rarest class, >= 0.
        logit_scale: s, > 0; it acts where the margins act.
        effective_number_beta: beta of the class weights, 0 to 1, as in ``ClassBalanced``.
        reweight_from: share of the training, 0 to 1, from which the classes are weighted.
        margins_from: share of the training, 0 to 1, from which margins and scale act; before, the loss is plain
            cross-entropy. 0 is the LDAM paper's way. Default: *reweight_from*, the DASO authors' way.

    Raises:
        OptionError: a class has no labelled image, or a value is out of range.

    Departures from the paper: the default of *margins_from*, and the classifier: the paper's takes the cosine
    between features and weights, this one is the network's linear head, as in the DASO authors' code. With CReST, see
    ``ClassBalanced``.
    """

    paper = "Cao et al., NeurIPS 2019, arXiv 1906.07413"
    class_weights: Tensor
    margins: Tensor

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        *,
        max_margin: float = 0.5,
        logit_scale: float = 30.0,
        effective_number_beta: float = 0.999,
        reweight_from: float = 0.8,
        margins_from: float | None = None,
    ) -> None:
        super().__init__()
        if margins_from is None:
            margins_from = reweight_from
        for name, value, valid in (
            ("max_margin", max_margin, 0 <= max_margin < math.inf),
            ("logit_scale", logit_scale, 0 < logit_scale < math.inf),
            ("effective_number_beta", effective_number_beta, 0 <= effective_number_beta <= 1),
            ("reweight_from", reweight_from, 0 <= reweight_from <= 1),
            ("margins_from", margins_from, 0 <= margins_from <= 1),
        ):
            if not valid:
                raise OptionError(f"LDAM: {name} = {value} is out of range")
        self.register_buffer(
            "class_weights", effective_number_weights(class_counts, effective_number_beta)
        )
        self.register_buffer(
            "margins", (max_margin * (class_counts.min() / class_counts) ** 0.25).float()
        )
        self.max_margin = max_margin
        self.logit_scale = logit_scale
        self.effective_number_beta = effective_number_beta
        self.reweight_from = reweight_from
        self.margins_from = margins_from
        self.first_weighted_step = round(reweight_from * total_steps)
        self.first_step_with_margins = round(margins_from * total_steps)

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        """Return the weighted mean of the cross-entropy with margins."""
        with_margins = logits - F.one_hot(labels, len(self.margins)) * self.margins
        logits = torch.where(
            step >= self.first_step_with_margins, self.logit_scale * with_margins, logits
        )
        weights = torch.where(step >= self.first_weighted_step, self.class_weights, 1.0)
        return F.cross_entropy(logits, labels, weight=weights)
