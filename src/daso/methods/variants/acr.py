"""ACR: pseudo-labels are adjusted by how the unlabeled images seem to be distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import class_shares
from daso.methods.fixmatch import FixMatch
from daso.methods.ramp import never_updated
from daso.nets.network import Network
from daso.refine.guess import Guess
from daso.terms.term import Outputs, Term

HEAD = "balanced"
TINY = 1e-12


def reaches(probs: Tensor, threshold: float) -> Tensor:
    """Return whether the largest probability of each row (U, K) is at least a threshold, (U,)."""
    return probs.amax(1) >= threshold


class BalancedHead(Term):
    """The second head of ``ACR``, which classifies at test time.

    Args:
        prior: float, (K,), l, share of each class among the labeled images.
        threshold: probability from which a guess is used.
        strength: tau, of the adjustments.
    """

    output = HEAD

    def __init__(self, prior: Tensor, threshold: float, strength: float) -> None:
        super().__init__()
        self.prior = nn.Buffer(prior.clone())
        self.threshold = threshold
        self.strength = strength

    @property
    def heads(self) -> dict[str, int]:
        return {HEAD: len(self.prior)}

    @torch.no_grad()
    def beliefs(self, network: Network, weak: Tensor) -> dict[str, Tensor]:
        return {HEAD: network.classify(weak, HEAD).softmax(1)}

    def forward(self, network: Network, outputs: Outputs) -> dict[str, Tensor]:
        """Return the losses ``"balanced_labeled"`` and ``"balanced_unlabeled"``."""
        shift = self.strength * self.prior.log()
        logits = network.classify(outputs.labeled, HEAD)
        guess = (outputs.guess.parts["linear"].log() - shift).softmax(1)
        used = reaches(guess, self.threshold)
        used = used | reaches(outputs.guess.others[HEAD], self.threshold)
        strong = network.classify(outputs.strong, HEAD)
        per_image = F.cross_entropy(strong, guess.argmax(1), reduction="none")
        return {
            "balanced_labeled": F.cross_entropy(logits + shift, outputs.labels),
            "balanced_unlabeled": (used * per_image).mean(),
        }


class ACR(FixMatch):
    """FixMatch with a second, balanced head, and an adjustment that fits the unlabeled images.

    Wei, Gan: *Towards Realistic Long-Tailed Semi-Supervised Learning: Consistency Is All You Need*,
    CVPR 2023. The first head learns the labels as they are; its pseudo-label is that of
    softmax(z - a log l), with the labeled distribution l, and counts if it is confident with or
    without the adjustment. The second head learns the labels with logit adjustment tau, and is
    taught by softmax(z - tau log l) of the first; it classifies. The strength a follows from the
    distances of the estimated unlabeled distribution to l, to uniform classes and to l reversed:
    a = tau exp(d_l) / (exp(d_l) + exp(d_uniform) + exp(d_reversed)), with half the symmetric
    Kullback-Leibler divergence.

    Args:
        class_counts: int64, (K,), labeled images of each class, at least 1 each.
        adjustment_strength: tau, >= 0.
        estimate_start: share of the training after which the distribution is estimated, 0 to 1;
            before, a is tau.
        estimate_period: steps after which a changes, >= 1.
        estimate_decay: share of the former estimate that is kept in each step, 0 to 1.
        threshold: probability from which a guess of either head is used, 0 to 1.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`, without its loss on labels and terms.

    Departures from the authors' code: one strong view, where theirs has two; every confident guess
    of a batch counts in the estimate, where theirs counts a class once; the unlabeled images do not
    include the labeled ones. l reversed gives the share of the most frequent class to the rarest,
    whatever the order of the classes.
    """

    paper = "Wei & Gan, CVPR 2023"
    balances = True
    unlabeled_options = ("threshold",)
    refuses: ClassVar = {
        "supervised": "its two heads have losses on labels of their own",
        "terms": "it has a second head already",
    }

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        *,
        adjustment_strength: float = 2.0,
        estimate_start: float = 0.012,
        estimate_period: int = 500,
        estimate_decay: float = 0.9,
        threshold: float = 0.95,
        **shared: Any,
    ) -> None:
        prior = class_shares(class_counts)
        head = BalancedHead(prior, threshold, adjustment_strength)
        super().__init__(terms=[head], threshold=threshold, **shared)
        self.adjustment_strength = check_range("adjustment_strength", adjustment_strength, 0)
        self.estimate_start = check_range("estimate_start", estimate_start, 0, 1)
        self.estimate_period = check_range("estimate_period", estimate_period, 1)
        self.estimate_decay = check_range("estimate_decay", estimate_decay, 0, 1)
        self.start = int(estimate_start * total_steps)
        order = prior.argsort(descending=True)
        self.prior = nn.Buffer(prior.clone())
        self.reversed = nn.Buffer(torch.empty_like(prior).scatter(0, order, prior.sort()[0]))
        self.unlabeled_share = nn.Buffer(torch.full_like(prior, 1 / len(prior)))
        self.distances = nn.Buffer(torch.zeros(3))
        self.strength = nn.Buffer(torch.full((1,), float(adjustment_strength)))

    @classmethod
    def remarks(cls, options: Mapping[str, Any], steps: int) -> Iterator[str]:
        return never_updated("ACR's adjustment", "estimate_period", options, steps)

    def describe(self) -> dict[str, list[float]]:
        """Return the estimated distribution of the unlabeled images, and a."""
        share = self.unlabeled_share.tolist()
        described = {"unlabeled_share": share, "adjustment": self.strength.tolist()}
        return described | super().describe()

    def improve(self, guess: Guess) -> Guess:
        guess = super().improve(guess)
        adjusted = (guess.probs.log() - self.strength * self.prior.log()).softmax(1)
        self._estimate(guess)
        return guess._replace(probs=adjusted)

    def weigh(self, guess: Guess) -> Tensor:
        """Return 1 for a guess that is confident before or after its adjustment, else 0."""
        plain = guess.parts["linear"]
        used = reaches(guess.probs, self.threshold) | reaches(plain, self.threshold)
        return used.to(plain.dtype)

    def _estimate(self, guess: Guess) -> None:
        """Move the distribution towards the second head's confident guesses; then the strength."""
        balanced = guess.others[HEAD]
        confident = reaches(balanced, self.threshold)[:, None]
        counts = (F.one_hot(balanced.argmax(1), len(self.prior)) * confident).sum(0)
        active = (guess.step >= self.start) & (counts.sum() > 0)
        found = counts / counts.sum().clamp(min=1)
        moved = active * (1 - self.estimate_decay) * (found - self.unlabeled_share)
        self.unlabeled_share.add_(moved)
        uniform = torch.full_like(self.prior, 1 / len(self.prior))
        anchors = torch.stack([self.prior, uniform, self.reversed])
        share = self.unlabeled_share
        ratio = (anchors + TINY).log() - (share + TINY).log()
        self.distances.add_(active * ((anchors - share) * ratio).sum(1) / 2)
        ends = (guess.step + 1) % self.estimate_period == 0
        fitting = self.adjustment_strength * (self.distances / self.estimate_period).softmax(0)[:1]
        renew = ends & (self.distances.sum() > 0)
        self.strength.copy_(torch.where(renew, fitting, self.strength))
        self.distances.mul_(~ends)
