"""DARP: distribution aligning refinery of pseudo-labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from daso.errors import OptionError
from daso.refine.guess import Guess, Refiner

EPSILON = 1e-6
"""Keeps shares of the authors' code from being 0; and the least images that a class can be given."""
NEWTON_STEPS = 8
"""Of each equation; it is then met to 1e-9 but for tables that have hardly any uncertain guess."""


class DARP(Refiner):
    """Moves the pseudo-labels of all unlabelled images, as little as possible, until the classes have their share.

    Kim et al.: *Distribution Aligning Refinery of Pseudo-label for Imbalanced Semi-supervised Learning*, NeurIPS
    2020, arXiv 2007.08844, section 3. A table holds the last guess about every unlabelled image, and every few steps
    the whole of it is refined: of each class the most confident guesses are kept (the paper's removal of noisy
    entries), and the rest is a convex problem, least entropy-weighted divergence from the guesses so that every image
    has probability 1 and class k has M_k images, solved by coordinate ascent in its dual variables. Guesses of other
    heads stay as they are.

    Args:
        num_classes: K.
        given_counts: int64, (K,), labelled images of each class; their shares are those of the unlabelled images
            unless *unlabeled_prior* says otherwise.
        num_unlabeled: N, unlabelled images.
        unlabeled_prior: float, (K,), share of each class among the unlabelled images; None: as the labelled ones.
        total_steps: T, of the training.
        darp_start: share of the training, 0 to 1, after which the refined guesses are used.
        darp_period: steps between two refinements of the table.
        darp_keep: alpha, > 0; of each class the darp_keep * M_k largest entries of the table are kept.
        darp_iterations: coordinate ascents of one refinement, >= 1.

    Raises:
        OptionError: a value is out of range.

    Departures from the authors' code: the equation of each class is solved to the end and for all classes at once,
    where theirs stops at a change of 0.1 of the dual variable; logarithms keep it finite for certain guesses and
    for classes that hardly exist; without an estimate theirs is told the true counts of the unlabelled images. As
    there, from the start until the first refinement the guesses are uniform.
    """

    paper = "Kim et al., NeurIPS 2020, arXiv 2007.08844"

    target: Tensor
    guesses: Tensor
    refined: Tensor

    def __init__(
        self,
        num_classes: int,
        given_counts: Tensor,
        num_unlabeled: int,
        unlabeled_prior: Tensor | None,
        total_steps: int,
        *,
        darp_start: float = 0.4,
        darp_period: int = 10,
        darp_keep: float = 2.0,
        darp_iterations: int = 10,
    ) -> None:
        super().__init__()
        for name, value, valid in (
            ("darp_start", darp_start, 0 <= darp_start <= 1),
            ("darp_period", darp_period, darp_period >= 1),
            ("darp_keep", darp_keep, 0 < darp_keep < math.inf),
            ("darp_iterations", darp_iterations, darp_iterations >= 1),
        ):
            if not valid:
                raise OptionError(f"DARP: {name} = {value!r} is out of range")
        shares = (given_counts if unlabeled_prior is None else unlabeled_prior).double()
        self.register_buffer("target", (num_unlabeled * shares / shares.sum()).float())
        uniform = torch.full((num_unlabeled, num_classes), 1 / num_classes)
        self.register_buffer("guesses", uniform)
        self.register_buffer("refined", uniform.clone())
        self.darp_start = darp_start
        self.darp_period = darp_period
        self.darp_keep = darp_keep
        self.darp_iterations = darp_iterations
        self.start = int(darp_start * total_steps)
        self._refines = False

    def begin_step(self, step: int) -> None:
        """Note on the host whether the table is refined in step *step*."""
        self._refines = step >= self.start and (step + 1) % self.darp_period == 0

    @torch.no_grad()
    def forward(self, guess: Guess) -> Guess:
        """Write the guess into the table and, after the start, return these rows of the refined one."""
        # Of an image that the batch has twice the later guess is kept, on every device.
        rows = torch.arange(len(guess.indices), device=guess.indices.device)
        last = ((guess.indices[:, None] == guess.indices) * rows).max(1).values
        self.guesses[guess.indices] = guess.probs[last]
        if self._refines:
            self.refined.copy_(refine(self.guesses, self.target, self.darp_keep, self.darp_iterations))
        probs = torch.where(guess.step >= self.start, self.refined[guess.indices], guess.probs)
        return guess._replace(probs=probs)

    def describe(self) -> dict[str, list[float]]:
        """Return the images that each class shall have and those that the refined table gives it."""
        return {"darp_target": self.target.tolist(), "darp_refined": self.refined.sum(0).tolist()}


@torch.library.custom_op("daso::darp", mutates_args=())
def refine(guesses: Tensor, target: Tensor, keep: float, iterations: int) -> Tensor:
    """Return a table of guesses (N, K) with rows of sum 1 and columns of sums near *target* (K,); see ``DARP``.

    A custom operator, so that a compiler leaves its loops and its float64 alone.
    """
    where = torch.device("cpu") if guesses.is_mps else guesses.device  # MPS has no float64
    counts = target.to(where).double()
    probs = clean(guesses.to(where).double(), counts, keep)
    log_probs, log_counts = probs.log(), counts.clamp(min=EPSILON).log()
    entropy = (-probs * (probs + EPSILON).log()).sum(1, keepdim=True).clamp(min=EPSILON)
    dual = torch.ones_like(counts)
    for _ in range(iterations):
        # The dual variables of the images need no place of their own: they make rows of sum 1, as softmax does.
        dual += balance((log_probs - entropy * dual).log_softmax(1), entropy, log_counts)
    return (log_probs - entropy * dual).softmax(1).to(guesses)


@refine.register_fake
def _(guesses: Tensor, target: Tensor, keep: float, iterations: int) -> Tensor:
    return torch.empty_like(guesses)


def clean(probs: Tensor, target: Tensor, keep: float) -> Tensor:
    """Keep the largest entries of each class, *keep* times as many as it shall have, scaled to its target."""
    values, images = probs.t().sort(dim=1, descending=True, stable=True)
    values *= torch.arange(len(probs), device=probs.device) < (keep * target).floor()[:, None]
    scale = (target + EPSILON) / (values.sum(1) + EPSILON)
    scaled = torch.empty_like(values).scatter_(1, images, values * scale[:, None]).t() + EPSILON
    return scaled / scaled.sum(1, keepdim=True)


def balance(log_probs: Tensor, entropy: Tensor, log_counts: Tensor) -> Tensor:
    """Solve sum_n p_nk exp(-h_n x_k) = c_k for x (K,), by Newton's method for all classes at once.

    The logarithm of the sum is convex and falls with x: from the left of the root Newton's method does not
    overshoot, and from the right *least* stops it, where one term alone already makes c_k.

    Args:
        log_probs: log p, (N, K).
        entropy: h, (N, 1), > 0.
        log_counts: log c, (K,).
    """
    shares = log_probs - log_counts
    least = (shares / entropy).max(0).values
    sums = torch.cat([torch.ones_like(entropy), entropy], dim=1).t()
    x = least.clamp(min=0)
    for _ in range(NEWTON_STEPS):
        terms = torch.addcmul(shares, entropy, x, value=-1).exp_()  # at most 1 each, as x >= least
        total, slope = sums @ terms
        total = total.clamp(min=1e-300)  # where all terms vanish the step is -inf, back to least
        x = torch.maximum(x + total.log() * total / slope, least)
    return x
