"""The choice by the labels: the mixture where it helps, none where many labels say so, any number of labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from blobs import blobs
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from daso.readout import choice
from daso.readout.choice import EXPECTED_GAIN, Choice, Features, choose
from daso.readout.mixture import MixtureOptions

OPTIONS = MixtureOptions()


def uses_unlabeled(choice: Choice) -> bool:
    return choice.best.unlabeled_weight is not None


def chosen(x: Tensor, y: Tensor, z: Tensor, classes: int = 3, **options: object) -> Choice:
    return choose([Features("one", x, z)], y, classes, (0.1, 0.5), replace(OPTIONS, **options))


def misleading(per_class: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return features whose classes are halves of two clusters, across the gap between these."""
    random = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        x = 0.3 * torch.randn(count, 2, generator=random).double()
        x[:, 0] += torch.where(torch.arange(count) % 2 == 0, 2.0, -2.0)
        return x

    x = draw(2 * per_class)
    return x, (x[:, 1] > 0).long(), draw(400)


def test_the_mixture_is_chosen_where_it_helps() -> None:
    (x, y), (z, _) = blobs([30, 10, 4], 0, 2.0), blobs([100] * 3, 1, 2.0)
    result = chosen(x, y, z)
    assert uses_unlabeled(result)
    assert result.gain > 2 * result.gain_error
    losses = {c.unlabeled_weight: c.loss for c in result.candidates}
    assert losses.keys() == {None, 0.1, 0.5}
    assert result.best.loss == min(losses[0.1], losses[0.5]) < losses[None]
    described = result.describe(result.best)
    assert described["unlabeled_weight"] == result.best.unlabeled_weight
    assert result.best_of(0.1).unlabeled_weight == 0.1


def test_many_labels_refuse_it_and_a_few_cannot() -> None:
    many = chosen(*misleading(200), classes=2)
    assert not uses_unlabeled(many)
    assert many.gain < 0
    mixed = min(c.loss for c in many.candidates if c.unlabeled_weight is not None)
    assert many.best.loss < mixed
    few = chosen(*misleading(4), classes=2)
    plain, *others = few.candidates
    assert plain.loss < min(c.loss for c in others)  # as it should be, and too little to go by
    assert uses_unlabeled(few)
    assert many.gain_error < few.gain_error < EXPECTED_GAIN[1]


def test_losses_are_those_of_cross_validation() -> None:
    """Balanced labels: each fold's head is scikit-learn's, at the temperature that was chosen."""
    x, y = blobs([20, 20, 20], 0, 3.0)
    result = chosen(x, y, x[:0])
    assert (result.gain, result.gain_error, uses_unlabeled(result)) == (0, 0, False)
    (only,) = result.candidates
    losses = torch.zeros(60, dtype=torch.float64)
    for others, own in choice._folds(y.numpy(), 5, 0):
        head = LogisticRegression(C=3 / (OPTIONS.penalty * len(others)), tol=1e-9, max_iter=1000)
        head.fit(x[others].numpy(), y[others].numpy())
        logits = torch.from_numpy(head.decision_function(x[own].numpy())) / only.temperature
        losses[own] = torch.nn.functional.cross_entropy(logits, y[own], reduction="none")
    assert only.loss == pytest.approx(float(losses.mean()), abs=1e-3)


def test_the_better_features_are_chosen() -> None:
    (x, y), (z, _) = blobs([30, 10, 4], 0), blobs([100] * 3, 1)
    noise = torch.randn(len(x), 5, generator=torch.Generator().manual_seed(3)).double()
    forms = [Features("noise", noise, z), Features("blobs", x, z)]
    assert choose(forms, y, 3, (0.1,), OPTIONS).best.name == "blobs"


def test_patches_are_joined_unless_enough_labels_speak_against_it() -> None:
    """Two labels a class cannot; and where joined features are better, any number speaks for them."""
    for count, better, joined in ((40, False, False), (2, False, True), (40, True, True)):
        (x, y), (z, _) = blobs([count] * 3, 0, 3.0), blobs([100] * 3, 1, 3.0)
        random = torch.Generator().manual_seed(4)

        def blurred(rows: Tensor, random: torch.Generator = random) -> Tensor:
            return rows + 2 * torch.randn(rows.shape, generator=random, dtype=rows.dtype)

        pairs = [(x, z), (blurred(x), blurred(z))]
        alone, beside = reversed(pairs) if better else pairs
        forms = [Features("alone", *alone), Features("beside", *beside, joins=True)]
        result = choose(forms, y, 3, (0.1, 0.5), OPTIONS)
        assert result.best.name == ("beside" if joined else "alone"), (count, better)
        assert {c.name for c in result.candidates} == {result.best.name}


def test_one_label_of_each_class_says_nothing() -> None:
    (x, y), (z, _) = blobs([1, 1, 1], 0), blobs([20] * 3, 1)
    result = chosen(x, y, z)
    assert uses_unlabeled(result)
    assert (result.gain, result.gain_error) == EXPECTED_GAIN
    assert result.best.temperature == 1


def test_any_few_labels_give_a_choice() -> None:
    for counts in ([2, 2], [2, 1, 1], [3, 0, 1], [2, 7, 1], [1], [5, 0]):
        x, y = blobs(counts, 0)
        for z in (blobs([20] * len(counts), 1)[0], x[:0]):
            result = chosen(x, y, z, classes=len(counts))
            numbers = [result.gain, result.gain_error, *(c.loss for c in result.candidates)]
            assert np.isfinite(numbers).all(), counts
            assert uses_unlabeled(result) <= (len(z) > 0)


def test_folds_hold_each_label_once_and_leave_one_of_each_class() -> None:
    for counts in ([2, 2], [9, 4, 1], [5, 5, 5], [7, 30], [1, 1]):
        labels = np.repeat(np.arange(len(counts)), counts)
        folds = choice._folds(labels, 5, 3)
        held = sorted(int(i) for _, own in folds for i in own)
        several = [i for i, k in enumerate(labels) if counts[k] > 1]
        assert held == several, counts
        for others, own in folds:
            assert set(labels[others.numpy()]) == set(labels)
            assert sorted([*others.tolist(), *own.tolist()]) == list(range(len(labels)))


def test_no_more_unlabeled_features_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "UNLABELED", 20)
    sizes, fit = [], choice.fit_mixture
    monkeypatch.setattr(choice, "fit_mixture", lambda *a: sizes.append(len(a[2])) or fit(*a))
    (x, y), (z, _) = blobs([4, 4], 0), blobs([20, 19], 1)
    chosen(x, y, z, classes=2)
    assert set(sizes) == {20}


def test_the_expected_gain_is_the_posterior_mean_of_normal_distributions() -> None:
    """Classes without a tested label count with the prior's mean, and without a variance."""
    gains = torch.tensor([0.5, 0.3, 0.1, -0.2, 0.0, 0.4], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    means = np.array([0.3, -0.1, 0.4])
    prior, prior_error = EXPECTED_GAIN
    shares = np.array([1 / 9] * 3 + [1 / 6] * 2 + [1 / 3])
    within = float(((gains.numpy() - means.mean()) * shares) ** 2 @ np.ones(6))
    for untested in (0, 2):
        classes = 3 + untested
        measured = (means.sum() + untested * prior) / classes
        variance = max(within, means.var(ddof=1) / 3) * (3 / classes) ** 2
        expected = np.average([prior, measured], weights=[1 / prior_error**2, 1 / variance])
        gain, error = choice._expected_gain(gains, labels, untested, EXPECTED_GAIN)
        assert gain == pytest.approx(expected, rel=1e-6)
        assert error == pytest.approx((1 / prior_error**2 + 1 / variance) ** -0.5, rel=1e-6)


def test_the_temperature_is_the_likeliest_of_those_in_reach() -> None:
    np.testing.assert_allclose(choice.TEMPERATURES, np.geomspace(0.25, 4, 17))
    random = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(400, 3, generator=random, dtype=torch.float64)
    for right in (0.5, 1.0, 2.0):
        labels = (logits / right).softmax(1).multinomial(1, generator=random)[:, 0]
        losses, temperature = choice._losses(logits, labels)
        assert abs(np.log2(temperature / right)) < 0.5
        cross_entropy = torch.nn.functional.cross_entropy
        expected = cross_entropy(logits / temperature, labels, reduction="none")
        torch.testing.assert_close(losses, expected)
    # Three labels move it less than many: the prior holds it near 1.
    few = choice._losses(logits[:3], logits[:3].argmax(1))[1]
    assert 0.25 < few <= 1


def test_labels_beyond_the_limit_are_left_out_class_by_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "LABELED", 20)
    labels = np.repeat([2, 0, 1], [30, 12, 3])
    rows = choice._balanced(labels, 0)
    kept = np.bincount(labels[rows])
    assert (kept[1], sorted(kept)) == (3, [3, 8, 9])
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert not torch.equal(rows, choice._balanced(labels, 1))
    assert choice._balanced(labels[-20:], 0).tolist() == list(range(20))


def test_many_classes_have_fewer_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MANY", 3)
    asked, folds = [], choice._folds
    monkeypatch.setattr(choice, "_folds", lambda *a: asked.append(a[1]) or folds(*a))
    for classes in (2, 3):
        (x, y), (z, _) = blobs([6] * classes, 0), blobs([9] * classes, 1)
        chosen(x, y, z, classes=classes)
    assert asked == [choice.FOLDS, choice.FOLDS_OF_MANY]
