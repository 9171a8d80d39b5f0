"""LDAM with deferred re-weighting: rare classes keep a wider margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import effective_number_weights
from daso.losses.labeled import LabeledLoss
from daso.parts import IdleOptions


class LDAM(LabeledLoss):
    """Require a margin of the true class's logit, wider for rare classes, which also weigh more.

    Cao et al.: *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss*, NeurIPS
    2019, arXiv 1906.07413, sections 3.2 and 3.3 (LDAM-DRW). The margin of class k is proportional
    to n_k^(-1/4). The loss is the cross-entropy of scale * (logits - margin of the true class),
    averaged with the class weights of effective numbers: sum of weight times loss over sum of
    weights.

    Args:
        class_counts: int64, (K,), labeled images of each class, at least 1 each.
        max_margin: margin of the rarest class, >= 0.
        logit_scale: s, > 0; it acts together with the margins.
        effective_number_beta: beta of the class weights, 0 to 1, as in ``ClassBalanced``.
        reweight_from: share of the training, 0 to 1, from which the classes are weighted.
        margins_from: share of the training, 0 to 1, from which margins and scale act; before, the
            loss is plain cross-entropy. 0: as in the LDAM paper. Default: *reweight_from*, as in
            the DASO authors' code.

    Raises:
        OptionError: a class has no labeled image, or a value is out of range.

    Departures from the paper: the default of *margins_from*; and the classifier is the network's
    linear head, as in the DASO authors' code, where the paper takes the cosine between features and
    weights. With CReST, see ``ClassBalanced``.
    """

    paper = "Cao et al., NeurIPS 2019, arXiv 1906.07413"
    balances = True

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
        self.max_margin = check_range("max_margin", max_margin, 0)
        self.logit_scale = check_range("logit_scale", logit_scale, above=0)
        self.effective_number_beta = check_range(
            "effective_number_beta", effective_number_beta, 0, 1
        )
        self.reweight_from = check_range("reweight_from", reweight_from, 0, 1)
        self.margins_from = check_range("margins_from", margins_from, 0, 1)
        weights = effective_number_weights(class_counts, effective_number_beta)
        margins = max_margin * (class_counts.min() / class_counts) ** 0.25
        self.class_weights = nn.Buffer(weights)
        self.margins = nn.Buffer(margins.float())
        self.first_weighted_step = round(reweight_from * total_steps)
        self.first_step_with_margins = round(margins_from * total_steps)

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        weighted_from, margins_from = options["reweight_from"], options["margins_from"]
        if weighted_from == 1:
            yield ("effective_number_beta",), "--reweight-from 1 never weights the classes"
        if (weighted_from if margins_from is None else margins_from) == 1:
            yield ("max_margin", "logit_scale"), "the margins never act"

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        with_margins = logits - F.one_hot(labels, len(self.margins)) * self.margins
        logits = torch.where(
            step >= self.first_step_with_margins, self.logit_scale * with_margins, logits
        )
        weights = torch.where(step >= self.first_weighted_step, self.class_weights, 1.0)
        return F.cross_entropy(logits, labels, weight=weights)
