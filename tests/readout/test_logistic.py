"""Logistic regression: scikit-learn's answer, the logit adjustment, soft targets, weights, absent classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from daso.readout.logistic import ABSENT, LinearHead, fit_logistic

K = 3
RANDOM = torch.Generator().manual_seed(0)
FEATURES = torch.randn(60, 4, generator=RANDOM, dtype=torch.float64)
LABELS = torch.arange(60) % K
FEATURES[:, :K] += F.one_hot(LABELS, K)


def fitted(features: Tensor, targets: Tensor, weights: Tensor | None = None) -> LinearHead:
    ones = features.new_ones(len(features))
    return fit_logistic(features, targets, ones if weights is None else weights, 0.01, steps=500)


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, K).double()


def test_balanced_labels_give_scikit_learns_regression() -> None:
    head = fitted(FEATURES, one_hot(LABELS))
    theirs = LogisticRegression(C=1 / (0.01 * 60), tol=1e-10, max_iter=1000)
    theirs.fit(FEATURES.numpy(), LABELS.numpy())
    probs = head(FEATURES).softmax(1).numpy()
    np.testing.assert_allclose(probs, theirs.predict_proba(FEATURES.numpy()), atol=1e-4)
    assert head.weight.dtype == torch.float64


def test_logits_are_those_for_balanced_classes() -> None:
    """With log shares added, they minimize the loss on unbalanced labels, as written out here for scipy."""
    kept = torch.cat([torch.arange(30), torch.arange(30, 60)[LABELS[30:] == 0]])
    x, y = FEATURES[kept], LABELS[kept]
    share = y.bincount(minlength=K).double() / len(y)
    assert share.max() > 1.9 * share.min()

    def loss(flat: np.ndarray) -> float:
        parameters = torch.from_numpy(flat).view(5, K)
        logits = x @ parameters[:4] + parameters[4] + share.log()
        return float(F.cross_entropy(logits, y) + 0.005 * parameters[:4].square().sum())

    head = fitted(x, one_hot(y))
    ours = torch.cat([head.weight, head.bias[None]])
    best = minimize(loss, np.zeros(5 * K), tol=1e-10, options={"maxiter": 500}).fun
    assert loss(ours.flatten().numpy()) == pytest.approx(best, abs=1e-8)
    # Without the log shares it is the regression that knows nothing of balance.
    plain = LogisticRegression(C=1 / (0.01 * len(y)), tol=1e-10, max_iter=1000).fit(
        x.numpy(), y.numpy()
    )
    adjusted = (head(x) + share.log()).softmax(1).numpy()
    np.testing.assert_allclose(adjusted, plain.predict_proba(x.numpy()), atol=1e-4)


def test_a_weight_counts_as_so_many_rows_and_a_soft_target_as_rows_of_several_labels() -> None:
    twice = torch.cat([FEATURES, FEATURES[:20]])
    repeated = fitted(twice, one_hot(torch.cat([LABELS, LABELS[:20]])))
    weights = torch.ones(60, dtype=torch.float64)
    weights[:20] = 2
    weighted = fitted(FEATURES, one_hot(LABELS), weights)
    torch.testing.assert_close(weighted(FEATURES), repeated(FEATURES), atol=1e-5, rtol=0)

    soft = 0.75 * one_hot(LABELS) + 0.25 * one_hot((LABELS + 1) % K)
    shares = torch.cat([torch.full((60,), share, dtype=torch.float64) for share in (0.75, 0.25)])
    labels = torch.cat([LABELS, (LABELS + 1) % K])
    split = fitted(FEATURES.repeat(2, 1), one_hot(labels), shares)
    torch.testing.assert_close(fitted(FEATURES, soft)(FEATURES), split(FEATURES), atol=1e-5, rtol=0)


def test_a_class_without_a_row_is_never_predicted_and_does_not_touch_the_others() -> None:
    targets = one_hot(LABELS)
    with_absent = fitted(FEATURES, F.pad(targets, (1, 0)))
    assert torch.equal(with_absent.weight[:, 0], torch.zeros(4, dtype=torch.float64))
    assert with_absent.bias[0] == ABSENT
    logits = with_absent(FEATURES)
    assert logits.softmax(1)[:, 0].max() < 1e-9
    torch.testing.assert_close(
        logits[:, 1:].softmax(1), fitted(FEATURES, targets)(FEATURES).softmax(1), atol=1e-5, rtol=0
    )


def test_a_scaled_head_has_scaled_logits() -> None:
    head = fitted(FEATURES, one_hot(LABELS))
    torch.testing.assert_close(head.scaled(0.5)(FEATURES), head(FEATURES) / 2)
