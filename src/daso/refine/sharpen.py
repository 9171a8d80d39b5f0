"""Sharpening: move a guess towards its most likely class."""

from __future__ import annotations

import torch
from torch import Tensor

from daso.errors import check_range
from daso.refine.guess import Guess, Refiner


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Return p_k^(1/T) / sum_j p_j^(1/T) of probabilities (N, K)."""
    # Divided first: the power of a whole row could vanish.
    powers = (probs / probs.amax(1, keepdim=True)) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


class Sharpen(Refiner):
    """Make guesses more certain by a power of the probabilities; those of other heads too.

    Berthelot et al.: *MixMatch*, NeurIPS 2019, arXiv 1905.02249, equation 7.

    Args:
        sharpen_temperature: T, > 0; 1 changes nothing, below 1 sharpens.
    """

    paper = "Berthelot et al., NeurIPS 2019, arXiv 1905.02249"

    def __init__(self, *, sharpen_temperature: float = 0.5) -> None:
        super().__init__()
        self.sharpen_temperature = check_range("sharpen_temperature", sharpen_temperature, above=0)

    @torch.no_grad()
    def forward(self, guess: Guess) -> Guess:
        temperature = self.sharpen_temperature
        others = {name: sharpen(probs, temperature) for name, probs in guess.others.items()}
        return guess._replace(probs=sharpen(guess.probs, temperature), others=others)
