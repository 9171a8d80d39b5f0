"""DebiasPL: guesses and loss are corrected by the mean guess."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import check_range
from daso.methods.fixmatch import FixMatch
from daso.refine.guess import Guess

TINY = 1e-12


class DebiasPL(FixMatch):
    """FixMatch whose guesses leave out what the network prefers, which the loss takes as a margin.

    Wang, Wu, Lian, Yu: *Debiased Learning from Naturally Imbalanced Pseudo-Labels*, CVPR 2022,
    arXiv 2201.01490. With the running mean q of the guesses by the network, the pseudo-label is
    that of softmax(z - lambda log q) (equation 3), and the loss on the strong view is the
    cross-entropy of z + lambda log q (equation 5).

    Args:
        debias: lambda, >= 0.
        mean_decay: decay of q, 0 to 1.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`.

    Without the loss between instances and groups (CLD), which the authors' code has as an option.
    """

    paper = "Wang et al., CVPR 2022, arXiv 2201.01490"
    unlabeled_options = ("threshold", "debias", "mean_decay")

    def __init__(
        self, num_classes: int, *, debias: float = 0.5, mean_decay: float = 0.999, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.debias = check_range("debias", debias, 0)
        self.mean_decay = check_range("mean_decay", mean_decay, 0, 1)
        self.mean_guess = nn.Buffer(torch.full((num_classes,), 1 / num_classes))

    def describe(self) -> dict[str, list[float]]:
        return {"mean_guess": self.mean_guess.tolist(), **super().describe()}

    def margin(self) -> Tensor:
        """Return lambda log q, float (K,)."""
        return self.debias * self.mean_guess.clamp(min=TINY).log()

    def improve(self, guess: Guess) -> Guess:
        mean = guess.probs.mean(0).to(self.mean_guess)
        guess = super().improve(guess)
        debiased = (guess.probs.log() - self.margin()).softmax(1)
        self.mean_guess.lerp_(mean, 1 - self.mean_decay)
        return guess._replace(probs=debiased)

    def unlabeled_losses(self, logits: Tensor, guess: Guess, mask: Tensor) -> dict[str, Tensor]:
        return super().unlabeled_losses(logits + self.margin(), guess, mask)
