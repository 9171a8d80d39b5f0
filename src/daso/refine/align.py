"""Distribution alignment: rescale guesses until their mean is the target class distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from daso.errors import OptionError, check_range
from daso.refine.guess import Guess, Refiner

EPSILON = 1e-6


class Align(Refiner):
    """Divide a guess by the mean of recent guesses and multiply it with the target distribution.

    Berthelot et al.: *ReMixMatch*, ICLR 2020, arXiv 1911.09785, section 3.1:
    p' = normalize(p * target / mean). Wei et al.: *CReST*, CVPR 2021, arXiv 2102.09559, section
    3.3, raise the target to a power below 1, which makes it more balanced.

    Args:
        given_counts: int64, (K,), labeled images of each class; their shares are the target unless
            *unlabeled_prior* is known.
        unlabeled_prior: float, (K,), share of each class among the unlabeled images; None: unknown.
        align_temperature: power of the target, >= 0; 0: uniform.
        align_memory: number of steps, including the current one, whose guesses are averaged, >= 1.

    Raises:
        OptionError: the target is not a distribution, or a value is out of range.

    Guesses of other heads are not changed: they have another mean, which is not recorded.
    """

    paper = "Berthelot et al., ICLR 2020, arXiv 1911.09785"
    replaces_alignment = True

    def __init__(
        self,
        given_counts: Tensor,
        unlabeled_prior: Tensor | None,
        align_temperature: float,
        *,
        align_memory: int = 128,
    ) -> None:
        super().__init__()
        target = (given_counts if unlabeled_prior is None else unlabeled_prior).double()
        if not (target.isfinite().all() and (target >= 0).all() and target.sum() > 0):
            raise OptionError(f"{target.tolist()} is not a class distribution to align to")
        self.align_temperature = check_range("align_temperature", align_temperature, 0)
        self.align_memory = check_range("align_memory", align_memory, 1)
        self.target = nn.Buffer((target / target.sum()).float())
        self.sums = nn.Buffer(torch.zeros(align_memory, len(target)))
        self.rows = nn.Buffer(torch.zeros(align_memory))

    def mean(self) -> Tensor:
        """Return the mean of the recent guesses, float (K,); zeros before the first one."""
        return self.sums.sum(0) / self.rows.sum().clamp(min=1)

    def describe(self) -> dict[str, list[float]]:
        return {"mean_guess": self.mean().tolist()}

    @torch.no_grad()
    def forward(self, guess: Guess) -> Guess:
        slot = (guess.step % self.align_memory).view(1)
        self.sums.index_copy_(0, slot, guess.probs.sum(0, keepdim=True))
        self.rows.index_fill_(0, slot, len(guess.probs))
        target = self.target**self.align_temperature
        ratio = (target / target.sum() + EPSILON) / (self.mean() + EPSILON)
        aligned = guess.probs * ratio
        return guess._replace(probs=aligned / aligned.sum(1, keepdim=True))
