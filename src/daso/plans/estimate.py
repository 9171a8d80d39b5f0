"""Estimate the class distribution of the unlabeled images, for the parts that use it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from daso.data.training_data import TrainingData
from daso.errors import OptionError, check_range
from daso.evaluate.predict import predict_in_batches, predict_logits
from daso.nets.network import Network
from daso.parts import Facts
from daso.plans.plan import Plan, Stage


class EstimatePrior(Plan):
    """Train on labels first, then estimate the unlabeled classes from its guesses and a hold-out.

    Column y of the matrix C is the mean of the network's class probabilities on held-out images of
    class y. Their mean on the unlabeled images is m. If the images of a class are alike in both
    sets, m = C q, with the unknown distribution q.

    Lipton, Wang, Smola: *Detecting and Correcting for Label Shift with Black Box Predictors*, ICML
    2018, arXiv 1802.03916, with probabilities in place of answers, as DASO's authors do for DARP.

    Args:
        total_steps: of the training of the method itself, after the estimate.
        estimate_steps: steps of the training for the estimate, >= 1. Default: a fifth of
            *total_steps*.

    Raises:
        OptionError: a value is out of range; before the training, if a class has no held-out image,
            or there are no unlabeled images.

    Departures from the authors' code of DASO: q is always the least-squares solution among
    distributions; theirs inverts C, and averages over those evaluations of the whole training in
    which the result has no negative share and the condition number of C is below 100. The moving
    average is used, there the network itself.
    """

    paper = "Lipton et al., ICML 2018, arXiv 1802.03916"
    provides = "unlabeled_prior"

    def __init__(
        self, num_classes: int, total_steps: int, *, estimate_steps: int | None = None
    ) -> None:
        super().__init__(total_steps)
        if estimate_steps is None:
            estimate_steps = max(1, total_steps // 5)
        self.estimate_steps = check_range("estimate_steps", estimate_steps, 1)
        self.prior = nn.Buffer(torch.full((num_classes,), 1 / num_classes))
        self.condition = nn.Buffer(torch.ones(1))

    def stages(self) -> tuple[Stage, ...]:
        return Stage(self.estimate_steps, method="supervised"), Stage(self.total_steps)

    def data(self, stage: int, data: TrainingData) -> TrainingData:
        """Return the data unchanged, if it suffices for an estimate."""
        if data.unlabeled is None:
            raise OptionError("estimate needs unlabeled images, and the data has none")
        empty = torch.empty(0, dtype=torch.int64)
        held_out = empty if data.holdout is None else data.holdout.labels.cpu()
        missing = (held_out.bincount(minlength=len(data.class_names)) == 0).nonzero()[:, 0]
        if len(missing):
            names = ", ".join(data.class_names[k] for k in missing[:10])
            cure = f"set some aside with --holdout {len(data.class_names)}"
            if data.holdout is not None and not len(data.split.holdout):
                cure = "add validation images of them"
            elif data.class_counts[missing.numpy()].min() < 2:
                cure = "label more images of them"
            raise OptionError(
                f"estimate needs held-out images of every class, and {len(missing)} classes have "
                f"none ({names}{', ...' if len(missing) > 10 else ''}); {cure}"
            )
        return data

    def facts(self, stage: int, facts: Facts) -> Facts:
        return dataclasses.replace(facts, unlabeled_prior=self.prior) if stage else facts

    def conclude(self, stage: int, network: Network, data: TrainingData) -> None:
        assert data.unlabeled is not None
        assert data.holdout is not None
        held_out = predict_logits(network, data.holdout.images).double().softmax(1)
        total = torch.zeros_like(self.prior, dtype=torch.float64)
        for logits in predict_in_batches(network, data.unlabeled.images):
            total += logits.cpu().double().softmax(1).sum(0)
        labels = data.holdout.labels.cpu()
        sums = torch.zeros(len(self.prior), len(self.prior), dtype=torch.float64)
        counts = labels.bincount(minlength=len(self.prior))
        confusion = sums.index_add_(0, labels, held_out).t() / counts
        self.prior.copy_(nearest_distribution(confusion, total / len(data.unlabeled)))
        self.condition.copy_(torch.linalg.cond(confusion))

    def describe(self) -> dict[str, list[float]]:
        """Return the estimate, and the condition number of C, by which errors of m can grow."""
        prior, condition = self.prior.tolist(), self.condition.tolist()
        return {"unlabeled_prior": prior, "confusion_condition": condition}


def nearest_distribution(matrix: Tensor, target: Tensor) -> Tensor:
    """Return the distribution q, float64 (K,), that minimizes |matrix q - target|.

    An active-set method, exact in a finite number of steps. From a valid distribution it moves
    towards the best one on the free classes, stops where a share becomes 0 and fixes that class. At
    the best one it frees the fixed class whose share would grow.
    """
    size = len(target)
    gram, linear = matrix.t() @ matrix, matrix.t() @ target
    share = torch.full_like(target, 1 / size)
    free = torch.ones(size, dtype=torch.bool)
    for _ in range(10 * size):
        # The minimum with sum 1 over the free classes, with its multiplier last.
        system = torch.ones(int(free.sum()) + 1, int(free.sum()) + 1, dtype=torch.float64)
        system[:-1, :-1], system[-1, -1] = gram[free][:, free], 0
        right = torch.cat([linear[free], torch.ones(1, dtype=torch.float64)])
        solution = torch.linalg.lstsq(system, right, driver="gelsd").solution
        best = torch.zeros_like(share)
        best[free] = solution[:-1]
        falling = free & (best < 0)
        if falling.any():
            ratio = torch.where(falling, share / (share - best), torch.inf)
            share = share + ratio.min() * (best - share)
            free[ratio.argmin()] = False
            share[~free] = 0
            continue
        share = best
        pull = linear - gram @ share - solution[-1]
        pull[free] = 0
        if pull.max() <= 1e-12:
            break
        free[pull.argmax()] = True
    share = share.clamp(min=0)
    return share / share.sum()
