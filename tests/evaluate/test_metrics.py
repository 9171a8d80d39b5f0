"""Metrics against scikit-learn, where it has them, and against plain loops."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import sklearn.metrics
import torch

from daso.evaluate.metrics import (
    adjust_logits,
    calibration_error,
    class_groups,
    classification_metrics,
    confusion_matrix,
    evaluate_logits,
    pseudo_label_metrics,
    recall_precision,
)

CLASSES = 6
COUNTS = np.array([50, 30, 20, 10, 5, 2])


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sample(seed: int, images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of an imbalanced set that a classifier gets partly right."""
    random = np.random.default_rng(seed)
    labels = random.choice(CLASSES, images, p=COUNTS / COUNTS.sum())
    logits = random.normal(size=(images, CLASSES)) * 2
    logits[np.arange(images), labels] += 1.5
    return logits, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()


def test_confusion_recall_and_precision_equal_scikit_learn() -> None:
    for seed in range(3):
        logits, labels = sample(seed)
        predictions = logits.argmax(1)
        confusion = confusion_matrix(labels, predictions, CLASSES)
        expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(CLASSES))
        np.testing.assert_array_equal(confusion, expected)
        recall, precision = recall_precision(confusion)
        options = {"labels": range(CLASSES), "average": None, "zero_division": np.nan}
        np.testing.assert_allclose(
            recall, sklearn.metrics.recall_score(labels, predictions, **options)
        )
        np.testing.assert_allclose(
            precision, sklearn.metrics.precision_score(labels, predictions, **options)
        )


def test_unknown_labels_are_left_out_of_the_confusion() -> None:
    labels, predictions = np.array([0, -1, 1, -1]), np.array([0, 1, 0, 1])
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 2), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(
        confusion_matrix(labels[:0], predictions[:0], 2), np.zeros((2, 2))
    )


def test_absent_classes_have_no_recall_and_unguessed_ones_no_precision() -> None:
    recall, precision = recall_precision(np.array([[3, 1, 0], [0, 0, 0], [2, 2, 0]]))
    np.testing.assert_array_equal(recall, [0.75, np.nan, 0.0])
    np.testing.assert_array_equal(precision, [0.6, 0.0, np.nan])


def test_metrics_equal_scikit_learn() -> None:
    for seed in range(3):
        logits, labels = sample(seed)
        metrics = classification_metrics(logits, labels, COUNTS)
        predictions = logits.argmax(1)
        assert metrics["accuracy"] == pytest.approx(
            sklearn.metrics.accuracy_score(labels, predictions)
        ), seed
        assert metrics["balanced_accuracy"] == pytest.approx(
            sklearn.metrics.balanced_accuracy_score(labels, predictions)
        ), seed
        assert metrics["loss"] == pytest.approx(
            sklearn.metrics.log_loss(labels, softmax(logits), labels=range(CLASSES))
        ), seed
        recall = sklearn.metrics.recall_score(
            labels, predictions, average=None, labels=range(CLASSES)
        )
        np.testing.assert_allclose(metrics["recall"], recall)
        assert metrics["geometric_mean"] == pytest.approx(math.prod(recall) ** (1 / CLASSES)), seed
        assert metrics["recall_many"] == pytest.approx(recall[:2].mean()), seed
        assert metrics["recall_medium"] == pytest.approx(recall[2:4].mean()), seed
        assert metrics["recall_few"] == pytest.approx(recall[4:].mean()), seed


def test_absent_classes_count_neither_for_nor_against() -> None:
    labels = np.array([0, 0, 2, 2])
    logits = np.eye(4)[[0, 1, 2, 2]] * 3
    metrics = classification_metrics(logits, labels, np.array([9, 5, 3, 1]))
    assert metrics["balanced_accuracy"] == 0.75
    assert metrics["geometric_mean"] == pytest.approx(math.sqrt(0.5))
    assert metrics["recall_few"] != metrics["recall_few"]
    assert math.isnan(metrics["recall"][1])
    assert metrics["recall_many"] == 0.5


def test_a_class_that_is_never_found_makes_the_geometric_mean_zero() -> None:
    metrics = classification_metrics(np.eye(2)[[0, 0, 0]], np.array([0, 0, 1]), np.array([2, 1]))
    assert metrics["geometric_mean"] == 0.0
    assert metrics["balanced_accuracy"] == 0.5
    assert math.isnan(metrics["recall_few"])


def test_huge_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32)
    metrics = classification_metrics(logits, np.array([0, 0]), np.array([1, 1]))
    assert metrics["loss"] == pytest.approx(1e4)
    assert metrics["calibration_error"] == pytest.approx(0.5)


def test_calibration_error_equals_a_plain_loop() -> None:
    for seed, bins in itertools.product(range(3), (1, 5, 15)):
        logits, labels = sample(seed)
        probs = softmax(logits)
        expected = 0.0
        for index in range(bins):
            inside = [
                (p.max(), p.argmax() == y)
                for p, y in zip(probs, labels, strict=True)
                if index / bins <= p.max() < (index + 1) / bins
                or (index == bins - 1 and p.max() == 1)
            ]
            if inside:
                confidence = sum(c for c, _ in inside) / len(inside)
                accuracy = sum(right for _, right in inside) / len(inside)
                expected += len(inside) / len(labels) * abs(accuracy - confidence)
        assert calibration_error(probs, labels, bins) == pytest.approx(expected), (seed, bins)


def test_calibration_error_at_its_ends() -> None:
    certain = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert calibration_error(certain, np.array([0, 0])) == 0
    assert calibration_error(certain, np.array([1, 1])) == 1


def test_groups() -> None:
    cases: list[tuple[list[int], tuple[list[int], ...]]] = [
        ([9, 8, 7, 6, 5, 4], ([0, 1], [2, 3], [4, 5])),
        ([1, 9, 5], ([1], [2], [0])),
        ([5, 5, 5, 4], ([0, 1], [2], [3])),
        ([5, 5, 5, 5], ([], [], [])),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], ([6, 7, 8, 9], [3, 4, 5], [0, 1, 2])),
        ([3, 4], ([1], [0], [])),
    ]
    for counts, groups in cases:
        expected = dict(zip(("many", "medium", "few"), groups, strict=True))
        assert class_groups(np.array(counts)) == expected


def test_logit_adjustment_divides_by_the_prior() -> None:
    logits, labels = sample(0)
    adjusted = adjust_logits(logits, COUNTS)
    expected = softmax(logits) / COUNTS
    np.testing.assert_allclose(softmax(adjusted), expected / expected.sum(1, keepdims=True))
    np.testing.assert_allclose(adjust_logits(logits, COUNTS, strength=0.0), logits)
    balanced = adjust_logits(logits, np.full(CLASSES, 7))
    np.testing.assert_array_equal(balanced.argmax(1), logits.argmax(1))
    metrics = evaluate_logits(logits, labels, COUNTS)
    own = metrics.pop("logit_adjusted")
    np.testing.assert_equal(own, classification_metrics(adjusted, labels, COUNTS))
    np.testing.assert_equal(metrics, classification_metrics(logits, labels, COUNTS))
    assert own["recall_few"] > metrics["recall_few"]


def test_broken_logits_do_not_crash_the_metrics() -> None:
    logits = np.full((4, 2), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = classification_metrics(logits, np.array([0, 1, 0, 1]), np.array([2, 1]))
    assert math.isnan(metrics["loss"])


def test_pseudo_labels_with_known_truth() -> None:
    counts = np.array([[6, 2], [1, 1], [0, 0]])
    metrics = pseudo_label_metrics(counts)
    assert metrics["distribution"] == [0.7, 0.3]
    assert metrics["truth"] == [0.8, 0.2]
    assert metrics["recall"] == [0.75, 0.5]
    assert metrics["precision"] == pytest.approx([6 / 7, 1 / 3])
    assert metrics["accuracy"] == 0.7


def test_pseudo_labels_of_unknown_truth_count_for_their_distribution_only() -> None:
    metrics = pseudo_label_metrics(np.array([[3, 0], [1, 0], [0, 4]]))
    assert metrics["distribution"] == [0.5, 0.5]
    assert metrics["truth"] == [0.75, 0.25]
    assert metrics["accuracy"] == 0.75
    np.testing.assert_array_equal(metrics["precision"], [0.75, np.nan])
    assert pseudo_label_metrics(np.array([[0, 0], [0, 0], [1, 3]])) == {
        "distribution": [0.25, 0.75]
    }
    assert pseudo_label_metrics(np.zeros((3, 2))) == {"distribution": [0.0, 0.0]}
