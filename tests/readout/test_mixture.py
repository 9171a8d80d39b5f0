"""The mixture: EM as a plain loop in numpy, a reversed distribution that is found, classes with few labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import blobs
from scipy.special import log_softmax, softmax
from torch import Tensor

from daso.readout import mixture
from daso.readout.logistic import ABSENT, LinearHead, fit_logistic
from daso.readout.mixture import MixtureOptions, fit_labeled, fit_mixture

OPTIONS = MixtureOptions()


def numpy_em(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, other: np.ndarray | None, options: MixtureOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return the beliefs and the prior, with every sum written out; all classes have labels."""
    n, d = x.shape
    u, k = len(z), int(y.max()) + 1
    lam = min(1.0, options.unlabeled_weight * n / u)
    q, p = np.full(k, 1 / k), np.zeros((u, k))
    for _ in range(options.iterations):
        total, means, cov = np.zeros(k), np.zeros((k, d)), np.zeros((d, d))
        for c in range(k):
            own = x[y == c]
            total[c] = len(own) + lam * p[:, c].sum()
            means[c] = (own.sum(0) + lam * (p[:, [c]] * z).sum(0)) / total[c]
            spread = sum(np.outer(row - means[c], row - means[c]) for row in own)
            spread = spread + lam * sum(
                belief * np.outer(row - means[c], row - means[c])
                for row, belief in zip(z, p[:, c], strict=True)
            )
            cov += spread / total[c] / k  # every class with the same weight
        rho = options.shrinkage
        cov = (1 - rho) * cov + rho * np.trace(cov) / d * np.eye(d)
        inverse = np.linalg.inv(cov)
        logits = np.array([[row @ inverse @ m - 0.5 * m @ inverse @ m for m in means] for row in z])
        logits = log_softmax(logits, 1)
        if other is not None:
            logits = (logits + other) / 2
        p = softmax(logits + np.log(q), 1)
        a = options.smoothing * u / k
        q = (p.sum(0) + a) / (u + k * a)
    return p, q


def recorded(
    labeled: tuple[Tensor, Tensor],
    unlabeled: Tensor,
    options: MixtureOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[list[tuple[Tensor, Tensor]], mixture.MixtureFit]:
    """Fit a mixture; return the targets and weights of its regressions, and the fit."""
    calls: list[tuple[Tensor, Tensor]] = []

    def spy(x: Tensor, targets: Tensor, weights: Tensor, *rest: object) -> LinearHead:
        calls.append((targets.clone(), weights.clone()))
        return fit_logistic(x, targets, weights, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(mixture, "fit_logistic", spy)
    return calls, fit_mixture(*labeled, unlabeled, int(labeled[1].max()) + 1, options)


def test_beliefs_are_those_of_the_loop_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    for iterations in (1, 2, 7):
        (x, y), (z, _) = blobs([20, 9, 3], 0, 3.0), blobs([10, 20, 30], 1, 3.0)
        for weight in (0.1, 2.5):
            options = replace(OPTIONS, iterations=iterations, unlabeled_weight=weight)
            calls, fit = recorded((x, y), z, options, monkeypatch)
            arrays = x.numpy(), y.numpy(), z.numpy()
            first, _ = numpy_em(*arrays, None, options)
            assert first.max(1).min() < 0.9  # it is a matter of degree
            labels, one, two = calls
            np.testing.assert_allclose(one[0][32:], first, atol=1e-8)
            np.testing.assert_array_equal(one[0][:32], F.one_hot(y))
            np.testing.assert_allclose(one[1], [1.0] * 32 + [32 / 60] * 60)
            # The second pass averages with the head that was distilled from the first.
            rows = torch.cat([x, z])
            head = fit_logistic(rows, *one, OPTIONS.penalty / 3, OPTIONS.steps, fit.labeled_head)
            second, prior = numpy_em(*arrays, log_softmax(head(z).numpy(), 1), options)
            np.testing.assert_allclose(two[0][32:], second, atol=1e-8)
            np.testing.assert_allclose(fit.prior, prior, atol=1e-8)
            assert labels[0].shape == (32, 3)


def test_a_reversed_distribution_is_found_and_the_head_is_better_for_it() -> None:
    (x, y), (test, truth) = blobs([60, 20, 8, 3], 0, 2.2), blobs([500] * 4, 2, 2.2)
    for counts in ([30, 80, 200, 600], [600, 200, 80, 30], [200] * 4):
        z, _ = blobs(counts, 1, 2.2)
        fit = fit_mixture(x, y, z, 4, replace(OPTIONS, unlabeled_weight=0.5, smoothing=0.02))
        share = torch.tensor(counts) / sum(counts)
        assert (fit.prior - share).abs().max() < 0.07
        assert fit.prior.sum() == pytest.approx(1)
        recall = {
            name: torch.stack(
                [(head(test[truth == k]).argmax(1) == k).double().mean() for k in range(4)]
            )
            for name, head in (("mixture", fit.head), ("labeled", fit.labeled_head))
        }
        assert recall["mixture"].mean() > recall["labeled"].mean() + 0.02, counts


def test_without_unlabeled_features_it_is_the_labeled_head() -> None:
    x, y = blobs([6, 2], 0)
    fit = fit_mixture(x, y, x[:0], 2)
    assert fit.head is fit.labeled_head
    expected = fit_labeled(x, y, 2, OPTIONS.penalty)
    assert torch.equal(fit.head.weight, expected.weight)
    assert fit.prior.tolist() == [0.75, 0.25]


def test_a_class_without_a_label_gets_nothing() -> None:
    (x, y), (z, _) = blobs([20, 0, 5], 0), blobs([30, 30, 30], 1)
    fit = fit_mixture(x, y, z, 3)
    assert fit.prior[1] == 0
    assert fit.head(z).softmax(1)[:, 1].max() < 1e-6
    assert fit.head.bias[1] == ABSENT
    # The others are those of a mixture that knows nothing of it.
    same = replace(OPTIONS, penalty=OPTIONS.penalty * 2 / 3)  # which is divided by the classes
    two = fit_mixture(x, (y > 0).long(), z, 2, same)
    torch.testing.assert_close(fit.prior[[0, 2]], two.prior, atol=1e-6, rtol=0)
    torch.testing.assert_close(fit.head(z)[:, [0, 2]], two.head(z), atol=1e-3, rtol=0)


def test_one_label_of_a_class_and_of_every_class() -> None:
    z, truth = blobs([50, 50, 50], 1)
    for counts in ([20, 5, 1], [1, 1, 1]):
        x, y = blobs(counts, 0, 0.5)
        for dtype in (torch.float32, torch.float64):
            fit = fit_mixture(x.to(dtype), y, z.to(dtype), 3)
            assert fit.head(z.to(dtype)).isfinite().all()
            assert (fit.head(z.to(dtype)).argmax(1) == truth).float().mean() > 0.9, (counts, dtype)


def test_equal_features_give_no_error() -> None:
    x, z = torch.zeros(6, 3), torch.zeros(10, 3)
    fit = fit_mixture(x, torch.arange(6) % 2, z, 2)
    torch.testing.assert_close(fit.head(z).softmax(1), torch.full((10, 2), 0.5))


def test_a_thousand_classes_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many beliefs, images times classes, are kept; but no fewer than 2,000 images."""
    monkeypatch.setattr(mixture, "BELIEFS", 5_000)
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(1000, 4, generator=random), torch.arange(1000)
    z = torch.randn(2300, 4, generator=random)
    options = replace(OPTIONS, iterations=2, passes=1, steps=2)
    sizes = []
    monkeypatch.setattr(mixture, "fit_logistic", lambda x, *_: sizes.append(len(x)) or head)
    head = LinearHead(torch.zeros(4, 1000), torch.zeros(1000))
    fit = fit_mixture(x, y, z, 1000, options, head)
    assert sizes == [3000]
    assert fit.prior.shape == (1000,)
    monkeypatch.setattr(mixture, "BELIEFS", 2_100_000)
    fit_mixture(x, y, z, 1000, options, head)
    assert sizes[1:] == [3100]
