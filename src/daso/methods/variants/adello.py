"""ADELLO: losses that turn, step by step, from the distribution of the data to balanced classes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import class_shares
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch
from daso.refine.guess import Guess

EPSILON = 1e-9


class ADELLO(FixMatch):
    """FixMatch with flexible distribution alignment, and unsure guesses as soft targets.

    Sanchez Aimar et al.: *Flexible Distribution Alignment: Towards Long-tailed Semi-supervised
    Learning with Proper Calibration*, ECCV 2024, arXiv 2306.04621. With the running mean u of the
    guesses and the target q, which is u to the power a, normalized, labeled images have the
    cross-entropy of z + log(l / q), where l is the labeled distribution, and strong views that of
    z + log(u / q). The power falls from 1 to a_min: a = 1 - (1 - a_min) (t / T)^k. Guesses below
    the threshold are soft targets from a share of the training on, at the temperature exp(KL) of
    uniform classes from u at that step (complementary consistency).

    Args:
        class_counts: int64, (K,), labeled images of each class, at least 1 each.
        total_steps: T.
        least_power: a_min, 0 to 1.
        power_curve: k, > 0.
        mean_decay: decay of u, 0 to 1.
        complementary_weight: weight of the loss on guesses below the threshold, >= 0.
        complementary_start: share of the training after which it is used, 0 to 1; the authors start
            after 50,000 of 262,144 steps.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`, without its loss on labels.
    """

    paper = "Sanchez Aimar et al., ECCV 2024, arXiv 2306.04621"
    balances = True
    unlabeled_options = ("threshold",)
    refuses: ClassVar = {"supervised": "its loss on labels carries the estimated distribution"}

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        *,
        least_power: float = 0.1,
        power_curve: float = 2.0,
        mean_decay: float = 0.999,
        complementary_weight: float = 1.0,
        complementary_start: float = 0.2,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.least_power = check_range("least_power", least_power, 0, 1)
        self.power_curve = check_range("power_curve", power_curve, above=0)
        self.mean_decay = check_range("mean_decay", mean_decay, 0, 1)
        self.complementary_weight = check_range("complementary_weight", complementary_weight, 0)
        self.complementary_start = check_range("complementary_start", complementary_start, 0, 1)
        self.total_steps = total_steps
        self.start = int(complementary_start * total_steps)
        share = class_shares(class_counts)
        self.labeled_share = nn.Buffer(share)
        self.mean_guess = nn.Buffer(torch.full_like(share, 1 / len(share)))
        self.temperature = nn.Buffer(torch.ones(1))

    def describe(self) -> dict[str, list[float]]:
        return {"mean_guess": self.mean_guess.tolist(), **super().describe()}

    def shift(self, share: Tensor, step: Tensor) -> Tensor:
        """Return log(share / target), float (K,), which is added to logits in step *step*."""
        progress = (step / self.total_steps) ** self.power_curve
        target = self.mean_guess ** (1 - (1 - self.least_power) * progress)
        return ((share + EPSILON) / (target / target.sum() + EPSILON)).log()

    def labeled_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        shifted = logits + self.shift(self.labeled_share, batch.step)
        return F.cross_entropy(shifted, batch.labels)

    def unlabeled_losses(self, logits: Tensor, guess: Guess, mask: Tensor) -> dict[str, Tensor]:
        """Return the losses ``"unlabeled"`` and ``"complementary"``."""
        shifted = logits + self.shift(self.mean_guess, guess.step)
        losses = super().unlabeled_losses(shifted, guess, mask)
        if self.complementary_weight:
            mean = self.mean_guess.clamp(min=EPSILON)
            divergence = -mean.log().mean() - math.log(len(mean))
            starts = guess.step == self.start
            self.temperature.copy_(torch.where(starts, divergence.exp(), self.temperature))
            target = (guess.probs.log() / self.temperature).softmax(1)
            per_image = F.cross_entropy(shifted / self.temperature, target, reduction="none")
            unsure = (1 - mask) * (guess.step >= self.start)
            losses["complementary"] = self.complementary_weight * (unsure * per_image).mean()
        mean = guess.parts["linear"].mean(0).to(self.mean_guess)
        self.mean_guess.lerp_(mean, 1 - self.mean_decay)
        return losses
