"""A classifier from the geometry of labeled and unlabeled features: a mixture, distilled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.readout.logistic import LinearHead, fit_logistic

BELIEFS = 20_000_000
"""Largest number of beliefs, unlabeled images times classes, which bounds memory and time."""
MOST_UNLABELED = 200_000
"""Unlabeled images of a fit at most; more change the estimates little."""
LEAST_VARIANCE = 0.1
"""Share of the variance of all features that is within classes at least."""


@dataclass(frozen=True)
class MixtureOptions:
    """How much the mixture trusts unlabeled features.

    Attributes:
        unlabeled_weight: c, total weight of the unlabeled features in means and covariance,
            relative to that of the labeled ones, > 0.
        shrinkage: rho, share of the identity in the covariance, > 0, at most 1.
        smoothing: a, weight of the uniform distribution in the estimated prior, relative to the
            unlabeled images, >= 0.
        iterations: of EM, >= 1.
        passes: 1: EM, then distillation; 2: EM again, with the beliefs of the distilled head
            averaged in.
        penalty: K times the L2 penalty of the logistic regressions, which is for all weights.
        steps: of L-BFGS in each of them, >= 1.
    """

    unlabeled_weight: float = 0.1
    shrinkage: float = 0.3
    smoothing: float = 0.2
    iterations: int = 20
    passes: int = 2
    penalty: float = 0.1
    steps: int = 50


@dataclass(frozen=True)
class MixtureFit:
    """The result of ``fit_mixture``.

    Attributes:
        head: for balanced classes.
        labeled_head: the same, fitted to the labeled features only.
        prior: (K,), estimated shares of the classes among the unlabeled images.
    """

    head: LinearHead
    labeled_head: LinearHead
    prior: Tensor


def fit_labeled(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalty: float,
    steps: int = 50,
    start: LinearHead | None = None,
) -> LinearHead:
    """Fit logit-adjusted logistic regression to labeled features, float (N, d)."""
    targets, weights = F.one_hot(labels, classes).to(features), features.new_ones(len(features))
    return fit_logistic(features, targets, weights, penalty / classes, steps, start)


def fit_mixture(
    labeled: Tensor,
    labels: Tensor,
    unlabeled: Tensor,
    classes: int,
    options: MixtureOptions = MixtureOptions(),
    labeled_head: LinearHead | None = None,
) -> MixtureFit:
    """Fit a head to labeled and unlabeled features that may be differently balanced.

    A mixture of one Gaussian for each class with a common covariance S is fitted by EM (Nigam et
    al., *Text Classification from Labeled and Unlabeled Documents using EM*, Machine Learning
    2000). Its beliefs about unlabeled features are

        p_uk ~ q_k exp(z_u' S^-1 mu_k - mu_k' S^-1 mu_k / 2),

    with q the estimated class shares of the unlabeled images, which need not be known. The means
    take labeled features with weight 1 and unlabeled ones with weight lambda p_uk, lambda = min(1,
    c N / U). Every class has the same total weight in S, so that frequent classes do not shape the
    distances of rare ones. Then a linear head is fitted to the labels and to the beliefs, of total
    weight at most that of the labels, with the logit adjustment of their known mixed class shares.

    Args:
        labeled: float, (N, d). labels: int64, (N,). unlabeled: float, (U, d); U may be 0.
        labeled_head: of ``fit_labeled``; None: it is fitted here.
    """
    if labeled_head is None:
        labeled_head = fit_labeled(labeled, labels, classes, options.penalty)
    counts = labels.bincount(minlength=classes).to(labeled)
    if not len(unlabeled):
        return MixtureFit(labeled_head, labeled_head, counts / counts.sum())
    most = max(2_000, min(MOST_UNLABELED, BELIEFS // classes))
    if len(unlabeled) > most:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(unlabeled), generator=generator)[:most].sort().values
        unlabeled = unlabeled[chosen.to(unlabeled.device)]

    truth = F.one_hot(labels, classes).to(labeled)
    targets = torch.cat([truth, truth.new_zeros(len(unlabeled), classes)])
    features = torch.cat([labeled, unlabeled])
    weights = features.new_ones(len(features))
    weights[len(labeled) :] = min(1.0, len(labeled) / len(unlabeled))
    head, prior = labeled_head, counts
    for number in range(options.passes):
        before = head(unlabeled).log_softmax(1) if number else None
        beliefs, prior = _expectation_maximization(
            labeled, truth, counts, unlabeled, before, options
        )
        targets[len(labeled) :] = beliefs
        penalty = options.penalty / classes
        head = fit_logistic(features, targets, weights, penalty, options.steps, head)
    return MixtureFit(head, labeled_head, prior)


def _expectation_maximization(
    labeled: Tensor,
    truth: Tensor,
    counts: Tensor,
    unlabeled: Tensor,
    other: Tensor | None,
    options: MixtureOptions,
) -> tuple[Tensor, Tensor]:
    """Return the beliefs (U, K) of the mixture and the estimated prior (K,).

    Args:
        other: log-probabilities (U, K) that are averaged with those of the mixture.
    """
    size = labeled.shape[1]
    weight = min(1.0, options.unlabeled_weight * len(labeled) / len(unlabeled))
    present = counts > 0
    absent = ~present[:, None]
    sums, prior = truth.T @ labeled, present / present.sum()
    amount = options.smoothing * len(unlabeled) / int(present.sum())
    means = sums / counts.clamp(min=1)[:, None]
    # Classes come first: products and softmax are several times as fast along long rows.
    beliefs = unlabeled.new_zeros(len(counts), len(unlabeled))
    others = None if other is None else other.T.contiguous()
    total, mixed = counts, means
    # With a label or two of each class, nothing tells how much classes vary.
    variance = float(torch.cat([labeled, unlabeled]).var(0).mean())
    least = max(LEAST_VARIANCE * variance, 1e-12)
    for _ in range(options.iterations):
        # The covariance of all residuals, every class with the same total weight; on the host,
        # since some accelerators have no float64.
        share = torch.where(present, 1 / total.clamp(min=1e-12), 0.0)
        rows = (truth @ share).sqrt()[:, None], (weight * (share @ beliefs)).sqrt()[:, None]
        parts = torch.cat([labeled * rows[0], unlabeled * rows[1]])
        centered = mixed * (share * total).sqrt()[:, None]
        covariance = parts.T @ parts - centered.T @ centered
        covariance = (covariance / share.mul(total).sum()).cpu().double()
        floor = covariance.diagonal().mean().clamp(min=least)
        identity = torch.eye(size, dtype=torch.float64, device=covariance.device)
        covariance = (1 - options.shrinkage) * covariance + options.shrinkage * floor * identity
        directions = torch.linalg.solve(covariance, mixed.T.cpu().double()).T.to(labeled)  # (K, d)
        offset = -0.5 * (mixed * directions).sum(1, keepdim=True)
        logits = (directions @ unlabeled.T + offset).masked_fill_(absent, -torch.inf).log_softmax(0)
        if others is not None:
            logits = (logits + others) / 2
        beliefs = (logits + prior.log()[:, None]).softmax(0)
        mass = beliefs.sum(1)
        prior = torch.where(present, mass + amount, 0.0)
        prior = prior / prior.sum()
        total = counts + weight * mass
        mixed = (sums + weight * (beliefs @ unlabeled)) / total.clamp(min=1e-12)[:, None]
    return beliefs.T, prior
