"""Logistic regression with logit adjustment, soft targets and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ABSENT = -30.0
"""Logit of a class that nothing was learned about."""


@dataclass(frozen=True)
class LinearHead:
    """Logits (N, K) of features (N, d): features @ weight + bias."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight + self.bias

    def scaled(self, factor: float) -> LinearHead:
        """Return the head whose logits are multiplied by a factor."""
        return LinearHead(self.weight * factor, self.bias * factor)


def fit_logistic(
    features: Tensor,
    targets: Tensor,
    weights: Tensor,
    penalty: float = 0.01,
    steps: int = 50,
    start: LinearHead | None = None,
) -> LinearHead:
    """Fit a classifier for balanced classes to unbalanced targets, by L-BFGS.

    Minimizes the weighted mean cross-entropy of logits + log pi plus penalty / 2 |weight|^2, with
    the shares pi of the classes among the weighted targets (Menon et al., *Long-tail learning via
    logit adjustment*, ICLR 2021). The logits without log pi are those for balanced classes.

    Args:
        features: float, (N, d).
        targets: float, (N, K), class probabilities.
        weights: float, (N,), >= 0, of the rows.
        steps: of L-BFGS, at most.
        start: head to begin with, whose classes come first or go further; None: zeros.
    """
    weights = weights / weights.sum()
    share = weights @ targets
    prior = share.clamp(min=1e-12).log()
    weight = features.new_zeros(features.shape[1], targets.shape[1])
    bias = features.new_zeros(targets.shape[1])
    if start is not None:
        there = min(len(bias), len(start.bias))
        weight[:, :there] = start.weight[:, :there]
        bias[:there] = start.bias[:there].masked_fill(start.bias[:there] <= ABSENT, 0)
    weight.requires_grad_()
    bias.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )
    soft = targets * weights[:, None]

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = features @ weight + bias + prior
        value = -(F.log_softmax(logits, 1) * soft).sum() + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    absent = share <= 0
    return LinearHead(
        weight.detach().masked_fill(absent, 0), bias.detach().masked_fill(absent, ABSENT)
    )
