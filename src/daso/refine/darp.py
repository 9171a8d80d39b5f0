"""DARP: distribution aligning refinery of pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from daso.errors import check_range
from daso.parts import IdleOptions, NewTable
from daso.refine.guess import Guess, Refiner

EPSILON = 1e-6
"""Lower bound of shares, as in the authors' code, and of the number of images of a class."""
NEWTON_STEPS = 8
"""Newton steps for each equation. They solve it to 1e-9; to 1e-4 if one class has nearly all
images; less closely in tables that have hardly any uncertain guess."""
BLOCK_ELEMENTS = 2**20
"""Elements of a table that are processed at once."""
CACHED_ELEMENTS = 2**23
"""Elements of a table up to which intermediate results are kept between passes. For a larger table
they are computed again in each pass, so that a refinement needs memory for one block only, and to
sort the guesses of one class."""

Block = tuple[Tensor, Tensor]
Pass = Callable[[], Iterable[Block]]
"""Iterates over blocks of images: for n images a float64 table (n, K) and a column (n, 1)."""


class DARP(Refiner):
    """Change the pseudo-labels of all unlabeled images as little as possible to match class shares.

    Kim et al.: *Distribution Aligning Refinery of Pseudo-label for Imbalanced Semi-supervised
    Learning*, NeurIPS 2020, arXiv 2007.08844, section 3. A table holds the last guess about every
    unlabeled image. Every few steps the whole table is refined: the most confident guesses of each
    class are kept (the paper's removal of noisy entries). The rest is a convex problem: the least
    entropy-weighted divergence from the guesses such that every image has probability 1 and class k
    has M_k images, solved by coordinate ascent in its dual variables. Guesses of other heads are
    not changed.

    Args:
        given_counts: int64, (K,), labeled images of each class; their shares are the target unless
            *unlabeled_prior* is known.
        num_unlabeled: N, number of unlabeled images.
        unlabeled_prior: float, (K,), share of each class among the unlabeled images; None: unknown.
        total_steps: T, of the training.
        darp_start: share of the training, 0 to 1, after which the refined guesses are used.
        darp_period: steps between two refinements of the table, >= 1.
        darp_keep: alpha, > 0; the darp_keep * M_k largest entries of each class are kept.
        darp_iterations: coordinate ascents of one refinement, >= 1.

    Departures from the authors' code: the equation of each class is solved to the end and for all
    classes at once, where theirs stops at a change of 0.1 of the dual variable; logarithms keep it
    finite for certain guesses and for classes with hardly any image; without an estimate theirs
    uses the true counts of the unlabeled images. As there, guesses are uniform from the start until
    the first refinement.
    """

    paper = "Kim et al., NeurIPS 2020, arXiv 2007.08844"

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
        self.darp_start = check_range("darp_start", darp_start, 0, 1)
        self.darp_period = check_range("darp_period", darp_period, 1)
        self.darp_keep = check_range("darp_keep", darp_keep, above=0)
        self.darp_iterations = check_range("darp_iterations", darp_iterations, 1)
        shares = (given_counts if unlabeled_prior is None else unlabeled_prior).double()
        self.target = nn.Buffer((num_unlabeled * shares / shares.sum()).float())
        for name in ("guesses", "refined"):
            table = new_table((num_unlabeled, num_classes))
            self.register_buffer(name, table.fill_(1 / num_classes))
        self.start = int(darp_start * total_steps)
        self._refines = False

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        if options["darp_start"] == 1:
            yield ("darp_period", "darp_keep", "darp_iterations"), "--darp-start 1 never refines"

    def begin_step(self, step: int) -> None:
        """Decide, on the host, whether step *step* refines the table."""
        self._refines = step >= self.start and (step + 1) % self.darp_period == 0

    @torch.no_grad()
    def forward(self, guess: Guess) -> Guess:
        """Write the guess into the table; after the start, return its rows of the refined table."""
        # If an image is in the batch twice, its later guess is kept, on every device.
        rows = torch.arange(len(guess.indices), device=guess.indices.device)
        last = ((guess.indices[:, None] == guess.indices) * rows).max(1).values
        self.guesses[guess.indices] = guess.probs[last]
        if self._refines:
            refine(self.guesses, self.refined, self.target, self.darp_keep, self.darp_iterations)
        probs = torch.where(guess.step >= self.start, self.refined[guess.indices], guess.probs)
        return guess._replace(probs=probs)

    def describe(self) -> dict[str, list[float]]:
        """Return the target number of images of each class, and that of the refined table."""
        return {"darp_target": self.target.tolist(), "darp_refined": self.refined.sum(0).tolist()}


@torch.library.custom_op("daso::darp", mutates_args=("refined",))
def refine(guesses: Tensor, refined: Tensor, target: Tensor, keep: float, iterations: int) -> None:
    """Refine a table of guesses to rows of sum 1 and columns of sums near the target.

    See ``DARP``. As a custom operator, its loops and its float64 are not compiled.

    Args:
        guesses: (N, K).
        refined: (N, K), the result is written here.
        target: (K,).
        keep: alpha.
        iterations: coordinate ascents.
    """
    where = torch.device("cpu") if guesses.is_mps else guesses.device  # MPS has no float64
    counts = target.to(where).double()
    largest = _largest(guesses.to(where), counts, keep)
    rows = max(1, BLOCK_ELEMENTS // guesses.shape[1])
    is_cached = guesses.numel() <= CACHED_ELEMENTS

    def images() -> Iterator[Block]:
        for start in range(0, len(guesses), rows):
            yield _clean(guesses[start : start + rows].to(where), start, *largest)

    def shares() -> Iterator[Block]:
        # The dual variables of the images are implicit: they make rows of sum 1, as softmax does.
        for log_probs, entropy in each():
            yield (log_probs - entropy * dual).log_softmax(1) - log_counts, entropy

    each = _cached(images) if is_cached else images
    log_counts, dual = counts.clamp(min=EPSILON).log(), torch.ones_like(counts)
    for _ in range(iterations):
        dual = dual + balance(_cached(shares) if is_cached else shares)
    for number, (log_probs, entropy) in enumerate(each()):
        start = number * rows
        refined[start : start + rows] = (log_probs - entropy * dual).softmax(1).to(refined)


@refine.register_fake
def _(guesses: Tensor, refined: Tensor, target: Tensor, keep: float, iterations: int) -> None:
    return None


def _cached(blocks: Pass) -> Pass:
    results = list(blocks())
    return lambda: results


def _largest(guesses: Tensor, target: Tensor, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find the *keep* times target largest entries of each class; of equal entries, the first.

    Returns:
        For each class (K,): the smallest entry that is kept, the last image that is kept with
        exactly this entry, and the factor that scales the sum of the kept entries to the target.
    """
    images, classes = guesses.shape
    number = (keep * target).floor().clamp(max=images).long()
    results = []
    at_once = max(1, BLOCK_ELEMENTS // max(1, images))
    for first in range(0, classes, at_once):
        part = slice(first, first + at_once)
        values, order = guesses[:, part].t().sort(dim=1, descending=True, stable=True)
        within = torch.arange(images, device=guesses.device) < number[part, None]
        scale = (target[part] + EPSILON) / ((values * within).sum(1, dtype=torch.float64) + EPSILON)
        at = (number[part, None] - 1).clamp(min=0)
        least = values.gather(1, at)[:, 0].masked_fill(number[part] == 0, torch.inf)
        results.append((least, order.gather(1, at)[:, 0], scale))
    least, last, scale = map(torch.cat, zip(*results, strict=True))
    return least, last, scale


def _clean(guesses: Tensor, start: int, least: Tensor, last: Tensor, scale: Tensor) -> Block:
    """Return the logarithms of the scaled kept entries and the entropies, from image *start* on."""
    image = torch.arange(start, start + len(guesses), device=guesses.device)[:, None]
    is_kept = (guesses > least) | ((guesses == least) & (image <= last))
    scaled = torch.where(is_kept, guesses.double() * scale, 0) + EPSILON
    probs = scaled / scaled.sum(1, keepdim=True)
    entropy = (-probs * (probs + EPSILON).log()).sum(1, keepdim=True).clamp(min=EPSILON)
    return probs.log(), entropy


def balance(blocks: Pass) -> Tensor:
    """Solve sum_n s_nk exp(-h_n x_k) = 1 for x (K,), by Newton's method for all classes at once.

    The logarithm of the sum is convex and falls with x. From the left of the root Newton's method
    does not overshoot; from the right it stops at *least*, where one term alone is already 1.

    Args:
        blocks: of log s (n, K) and h (n, 1), > 0.
    """
    bounds = [(log_shares / entropy).max(0).values for log_shares, entropy in blocks()]
    least = torch.stack(bounds).max(0).values
    x = least.clamp(min=0)
    for _ in range(NEWTON_STEPS):
        sums = x.new_zeros(2, len(x))
        for log_shares, entropy in blocks():
            # At most 1 each, as x >= least.
            terms = torch.addcmul(log_shares, entropy, x, value=-1).exp_()
            sums += torch.cat([torch.ones_like(entropy), entropy], dim=1).t() @ terms
        total, slope = sums
        total = total.clamp(min=1e-300)  # if all terms vanish, the step is -inf, to least
        x = torch.maximum(x + total.log() * total / slope, least)
    return x
