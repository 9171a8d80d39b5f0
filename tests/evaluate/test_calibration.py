"""Temperature scaling recovers a known temperature and never changes a decision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from daso.evaluate.calibration import FEWEST_IMAGES, SPREAD, calibrate, fit_temperature


def drawn(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose softmax is the truth, and labels drawn from it."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, 5)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return logits, np.array([random.choice(5, p=row) for row in probs])


def loss_by_loops(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = math.fsum(math.exp(value / temperature) for value in row)
        losses.append(math.log(total) - row[label] / temperature)
    return math.fsum(losses) / len(losses)


def test_a_known_temperature_is_found() -> None:
    logits, labels = drawn(4000)
    for temperature in (0.5, 1.0, 3.0):
        assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.06)


def test_the_cost_is_least_at_the_fitted_temperature() -> None:
    logits, labels = drawn(80)

    def cost(temperature: float) -> float:
        return len(labels) * loss_by_loops(2 * logits, labels, temperature) + (
            math.log(temperature) ** 2 / (2 * SPREAD**2)
        )

    best = fit_temperature(2 * logits, labels)
    grid = np.exp(np.linspace(-2, 2, 801))
    assert cost(best) <= min(map(cost, grid)) + 1e-6


def test_a_network_that_makes_no_mistake_gets_no_extreme_temperature() -> None:
    labels = np.arange(60) % 3
    logits = 5.0 * np.eye(3)[labels]
    assert 0.3 < fit_temperature(logits, labels) < 1


def test_what_is_measured() -> None:
    logits, labels = drawn(2000)
    calibration = calibrate(3 * logits, labels, step=7)
    assert (calibration.images, calibration.step, calibration.note) == (2000, 7, None)
    assert calibration.loss_before == pytest.approx(loss_by_loops(3 * logits, labels, 1))
    assert calibration.loss_after == pytest.approx(
        loss_by_loops(3 * logits, labels, calibration.temperature)
    )
    assert calibration.loss_after < calibration.loss_before - 0.3
    assert calibration.error_after < 0.04 < calibration.error_before


def test_too_few_images_leave_the_probabilities_as_they_are() -> None:
    for images in (0, FEWEST_IMAGES - 1):
        logits, labels = drawn(images) if images else (np.zeros((0, 5)), np.zeros(0, np.int64))
        calibration = calibrate(3 * logits, labels, step=1)
        assert calibration.temperature == 1, images
        assert calibration.images == images
        assert ("too few" if images else "no hold-out") in str(calibration.note)
        assert calibration.loss_before == calibration.loss_after, images


def test_the_confusion_is_the_mean_answer_to_each_class() -> None:
    logits, labels = drawn(2000)
    calibration = calibrate(3 * logits, labels, step=7)
    assert calibration.confusion is not None
    for label in range(5):
        rows = 3 * logits[labels == label] / calibration.temperature
        probs = [np.exp(row) / np.exp(row).sum() for row in rows]
        column = [row[label] for row in calibration.confusion]
        np.testing.assert_allclose(column, np.mean(probs, 0), atol=1e-6)
    without = labels != 3
    few = np.concatenate([np.flatnonzero(without), np.flatnonzero(~without)[:9]])
    assert calibrate(logits[few], labels[few], step=7).confusion is None
