"""Class-balanced re-weighting by the effective number of images of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import OptionError, check_range
from daso.losses.labeled import LabeledLoss
from daso.parts import IdleOptions


def check_counts(class_counts: Tensor) -> None:
    """Raise an ``OptionError`` unless every class has a labeled image, given int64 (K,)."""
    if (class_counts < 1).any():
        raise OptionError(f"class_counts = {class_counts.tolist()}: must be at least 1 each")


def class_shares(class_counts: Tensor) -> Tensor:
    """Return the share of each class, float (K,), given int64 (K,); see ``check_counts``."""
    check_counts(class_counts)
    return (class_counts.double() / class_counts.sum()).float()


def effective_number_weights(class_counts: Tensor, beta: float) -> Tensor:
    """Return (1 - beta) / (1 - beta^n_k), for beta = 1 its limit 1 / n_k, scaled to sum to K.

    Args:
        class_counts: int64, (K,), n_k, at least 1 each.
        beta: 0 to 1.

    Returns:
        float, (K,).

    Raises:
        OptionError: a class has no image.
    """
    check_counts(class_counts)
    counts = class_counts.double()
    weights = 1 / counts if beta == 1 else (1 - beta) / (1 - beta**counts)
    return (weights * len(counts) / weights.sum()).float()


class ClassBalanced(LabeledLoss):
    """Weigh labels of rare classes more, late in the training, by the effective number of images.

    Cui et al.: *Class-Balanced Loss Based on Effective Number of Samples*, CVPR 2019, arXiv
    1901.05555, section 4: since images overlap, n images are worth (1 - beta^n) / (1 - beta). The
    weight of a class is the inverse of that number; the weights sum to K. The loss is the mean over
    the batch of weight times cross-entropy.

    Args:
        class_counts: int64, (K,), labeled images of each class, at least 1 each.
        effective_number_beta: beta, 0 to 1. 0: all classes weigh alike; 1: by the inverse of their
            count.
        reweight_from: share of the training, 0 to 1, from which the classes are weighted; before,
            the loss is plain cross-entropy. 0: from the start.

    Raises:
        OptionError: a class has no labeled image, or a value is out of range.

    Departures from the paper: it weights from the start. The DASO authors' code defers it to the
    last fifth of the training, and so does this default. With CReST that is the last fifth of every
    generation, and adopted labels are counted; their code counts the given labels and the steps of
    all generations.
    """

    paper = "Cui et al., CVPR 2019, arXiv 1901.05555"
    balances = True

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        *,
        effective_number_beta: float = 0.999,
        reweight_from: float = 0.8,
    ) -> None:
        super().__init__()
        self.effective_number_beta = check_range(
            "effective_number_beta", effective_number_beta, 0, 1
        )
        self.reweight_from = check_range("reweight_from", reweight_from, 0, 1)
        weights = effective_number_weights(class_counts, effective_number_beta)
        self.class_weights = nn.Buffer(weights)
        self.first_weighted_step = round(reweight_from * total_steps)

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        if options["reweight_from"] == 1:
            yield ("effective_number_beta",), "--reweight-from 1 never weights the classes"

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        weights = torch.where(step >= self.first_weighted_step, self.class_weights, 1.0)
        return (weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean()
