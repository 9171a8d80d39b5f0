"""Logistic regression with logit adjustment, soft targets and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.lazy import quick

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
    # Classes come first: products and softmax are several times as fast along long rows.
    soft = (targets * weights[:, None]).T.contiguous()
    mass, share = soft.sum(0), soft.sum(1)
    prior = share.clamp(min=1e-12).log()[:, None]
    weight = features.new_zeros(len(share), features.shape[1])
    bias = features.new_zeros(len(share), 1)
    if start is not None:
        there = min(len(bias), len(start.bias))
        weight[:there] = start.weight.T[:there]
        bias[:there, 0] = start.bias[:there].masked_fill(start.bias[:there] <= ABSENT, 0)
    optimizer = quick(torch.optim.LBFGS)(
        [weight, bias], max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        chances = F.log_softmax(weight @ features.T + (bias + prior), 0)
        value = -(chances * soft).sum() + penalty / 2 * weight.square().sum()
        slope = chances.exp_().mul_(mass).sub_(soft)
        weight.grad = torch.addmm(weight, slope, features, beta=penalty)
        bias.grad = slope.sum(1, keepdim=True)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    absent = share <= 0
    return LinearHead(
        weight.T.masked_fill(absent, 0).contiguous(), bias[:, 0].masked_fill(absent, ABSENT)
    )
