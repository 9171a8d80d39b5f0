"""SoftMatch: every guess teaches, with a weight that falls with its lack of confidence."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from daso.errors import check_range
from daso.methods.fixmatch import FixMatch
from daso.refine.guess import Guess

EPSILON = 1e-6


class SoftMatch(FixMatch):
    """FixMatch whose guesses weigh by a truncated Gaussian of their confidence.

    Chen et al.: *SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning*,
    ICLR 2023, arXiv 2301.10921. With running mean m and variance v of the confidence c, a guess
    weighs exp(-min(c - m, 0)^2 n^2 / (2 v)) (equations 7 and 8). The confidence is that of the
    guess aligned to uniform classes (section 3.3); the pseudo-label is that of the guess itself.

    Args:
        deviations: n, divides the standard deviation, > 0.
        uniform_alignment: align guesses to uniform classes before their confidence is read.
        mean_decay: decay of the running means, 0 to 1.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`, without its threshold.
    """

    paper = "Chen et al., ICLR 2023, arXiv 2301.10921"
    unlabeled_options = ("deviations", "uniform_alignment")
    refuses: ClassVar = {"threshold": "every guess is used, by its weight"}

    def __init__(
        self,
        num_classes: int,
        *,
        deviations: float = 2.0,
        uniform_alignment: bool = True,
        mean_decay: float = 0.999,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.deviations = check_range("deviations", deviations, above=0)
        self.mean_decay = check_range("mean_decay", mean_decay, 0, 1)
        self.uniform_alignment = uniform_alignment
        self.mean = nn.Buffer(torch.full((1,), 1 / num_classes))
        self.variance = nn.Buffer(torch.ones(1))
        self.mean_guess = nn.Buffer(torch.full((num_classes,), 1 / num_classes))

    def weigh(self, guess: Guess) -> Tensor:
        """Return the weight of each guess, float (U,), in (0, 1]."""
        probs, rate = guess.probs, 1 - self.mean_decay
        if self.uniform_alignment:
            mean = probs.mean(0).to(self.mean_guess)
            # The first mean is that of the first batch.
            self.mean_guess.lerp_(mean, rate).copy_(
                torch.where(guess.step == 0, mean, self.mean_guess)
            )
            probs = probs * (1 / probs.shape[1] + EPSILON) / (self.mean_guess + EPSILON)
            probs = probs / probs.sum(1, keepdim=True)
        confidence = probs.amax(1)
        self.mean.lerp_(confidence.mean().to(self.mean), rate)
        if len(confidence) > 1:  # the variance of one number is unknown
            self.variance.lerp_(confidence.var().to(self.variance), rate)
        below = (confidence - self.mean).clamp(max=0)
        return (-(below**2) * self.deviations**2 / (2 * self.variance)).exp()
