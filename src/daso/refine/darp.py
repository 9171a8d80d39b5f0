"""DARP: distribution aligning refinery of pseudo-labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from daso.errors import OptionError
from daso.parts import NewTable
from daso.refine.guess import Guess, Refiner

EPSILON = 1e-6
"""Keeps shares of the authors' code from being 0; and the least images that a class can be given."""
NEWTON_STEPS = 8
"""Of each equation; it is then met to 1e-9, to 1e-4 where one class is nearly all that is wanted, and less closely in
tables that have hardly any uncertain guess."""
BLOCK = 2**20
"""Numbers of a table that are worked on at once."""
KEPT = 2**23
"""Numbers of a table up to which what follows from it is kept between passes; of a larger one it is worked out anew in
each, so that a refinement takes memory for a block, and to sort the guesses of one class."""

Block = tuple[Tensor, Tensor]
Pass = Callable[[], Iterable[Block]]
"""Goes through some images after the others: of n of them a float64 table (n, K) and a column (n, 1)."""


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
        new_table: makes a tensor of a shape that has a row for each unlabelled image, wherever there is room for it.
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
        new_table: NewTable = torch.empty,
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
        for name in ("guesses", "refined"):
            self.register_buffer(
                name, new_table((num_unlabeled, num_classes)).fill_(1 / num_classes)
            )
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
            refine(self.guesses, self.refined, self.target, self.darp_keep, self.darp_iterations)
        probs = torch.where(guess.step >= self.start, self.refined[guess.indices], guess.probs)
        return guess._replace(probs=probs)

    def describe(self) -> dict[str, list[float]]:
        """Return the images that each class shall have and those that the refined table gives it."""
        return {"darp_target": self.target.tolist(), "darp_refined": self.refined.sum(0).tolist()}


@torch.library.custom_op("daso::darp", mutates_args=("refined",))
def refine(guesses: Tensor, refined: Tensor, target: Tensor, keep: float, iterations: int) -> None:
    """Refine a table of guesses to one with rows of sum 1 and columns of sums near the target; see ``DARP``.

    A custom operator, so that a compiler leaves its loops and its float64 alone.

    Args:
        guesses: (N, K).
        refined: (N, K), is written to.
        target: (K,).
        keep: alpha.
        iterations: coordinate ascents.
    """
    where = torch.device("cpu") if guesses.is_mps else guesses.device  # MPS has no float64
    counts = target.to(where).double()
    largest = _largest(guesses.to(where), counts, keep)
    rows = max(1, BLOCK // guesses.shape[1])
    few = guesses.numel() <= KEPT

    def images() -> Iterator[Block]:
        for start in range(0, len(guesses), rows):
            yield _clean(guesses[start : start + rows].to(where), start, *largest)

    def shares(log_probs: Tensor, entropy: Tensor) -> Block:
        # The dual variables of the images need no place of their own: they make rows of sum 1, as softmax does.
        return (log_probs - entropy * dual).log_softmax(1) - log_counts, entropy

    each = _kept(images) if few else images
    log_counts, dual = counts.clamp(min=EPSILON).log(), torch.ones_like(counts)
    for _ in range(iterations):
        moved = _mapped(each, shares)
        dual = dual + balance(_kept(moved) if few else moved)
    for number, (log_probs, entropy) in enumerate(each()):
        start = number * rows
        refined[start : start + rows] = (log_probs - entropy * dual).softmax(1).to(refined)


@refine.register_fake
def _(guesses: Tensor, refined: Tensor, target: Tensor, keep: float, iterations: int) -> None:
    return None


def _kept(blocks: Pass) -> Pass:
    """Return the same pass, worked out once."""
    found = list(blocks())
    return lambda: found


def _mapped(blocks: Pass, work: Callable[[Tensor, Tensor], Block]) -> Pass:
    """Return a pass through what becomes of the blocks."""
    return lambda: (work(*block) for block in blocks())


def _largest(guesses: Tensor, target: Tensor, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find the largest entries of each class, *keep* times as many as it shall have; of equal ones the first images'.

    Returns:
        Of each class (K,): the least entry that is kept, the last image that is kept with just this entry, and the
        factor that brings the sum of the entries to the target.
    """
    images, classes = guesses.shape
    number = (keep * target).floor().clamp(max=images).long()
    found = []
    at_once = max(1, BLOCK // max(1, images))
    for first in range(0, classes, at_once):
        part = slice(first, first + at_once)
        values, order = guesses[:, part].t().sort(dim=1, descending=True, stable=True)
        within = torch.arange(images, device=guesses.device) < number[part, None]
        scale = (target[part] + EPSILON) / ((values * within).sum(1, dtype=torch.float64) + EPSILON)
        at = (number[part, None] - 1).clamp(min=0)
        least = values.gather(1, at)[:, 0].masked_fill(number[part] == 0, torch.inf)
        found.append((least, order.gather(1, at)[:, 0], scale))
    least, last, scale = map(torch.cat, zip(*found, strict=True))
    return least, last, scale


def _clean(guesses: Tensor, start: int, least: Tensor, last: Tensor, scale: Tensor) -> Block:
    """Return, of the images from *start* on, the logarithms of their scaled largest entries and the entropies."""
    image = torch.arange(start, start + len(guesses), device=guesses.device)[:, None]
    is_kept = (guesses > least) | ((guesses == least) & (image <= last))
    scaled = torch.where(is_kept, guesses.double() * scale, 0) + EPSILON
    probs = scaled / scaled.sum(1, keepdim=True)
    entropy = (-probs * (probs + EPSILON).log()).sum(1, keepdim=True).clamp(min=EPSILON)
    return probs.log(), entropy


def balance(blocks: Pass) -> Tensor:
    """Solve sum_n s_nk exp(-h_n x_k) = 1 for x (K,), by Newton's method for all classes at once.

    The logarithm of the sum is convex and falls with x: from the left of the root Newton's method does not
    overshoot, and from the right *least* stops it, where one term alone already makes 1.

    Args:
        blocks: of log s (n, K) and h (n, 1), > 0.
    """
    least = (
        torch.stack([(log_shares / entropy).max(0).values for log_shares, entropy in blocks()])
        .max(0)
        .values
    )
    x = least.clamp(min=0)
    for _ in range(NEWTON_STEPS):
        sums = x.new_zeros(2, len(x))
        for log_shares, entropy in blocks():
            terms = torch.addcmul(
                log_shares, entropy, x, value=-1
            ).exp_()  # at most 1 each, as x >= least
            sums += torch.cat([torch.ones_like(entropy), entropy], dim=1).t() @ terms
        total, slope = sums
        total = total.clamp(min=1e-300)  # where all terms vanish the step is -inf, back to least
        x = torch.maximum(x + total.log() * total / slope, least)
    return x
