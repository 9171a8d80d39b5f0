"""What charts are computed from: bins, intervals, ticks, places and colors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from daso.evaluate.metrics import calibration_error
from daso.evaluate.reliability import reliability_bins
from daso.report.html.feature_map import frequency_color
from daso.report.html.svg import Scale
from daso.report.tsne import embed
from daso.report.uncertainty import interval


def test_reliability_against_a_loop() -> None:
    random_state = np.random.default_rng(0)
    probs = random_state.dirichlet(np.full(4, 0.6), 500)
    labels = random_state.integers(0, 4, 500)
    confidence, correct = probs.max(1), probs.argmax(1) == labels
    bins = reliability_bins(confidence, correct)
    edges, accuracy, mean, counts = bins
    for i in range(15):
        inside = [
            j
            for j in range(500)
            if edges[i] <= confidence[j] < edges[i + 1] or (i == 14 and confidence[j] == 1)
        ]
        assert counts[i] == len(inside)
        if inside:
            assert accuracy[i] == pytest.approx(np.mean([correct[j] for j in inside]))
            assert mean[i] == pytest.approx(np.mean([confidence[j] for j in inside]))
    assert bins.error == pytest.approx(calibration_error(probs, labels))
    assert bins.overconfidence == pytest.approx((confidence - correct).mean())


def test_the_interval_holds_balanced_accuracy_in_95_of_100_cases() -> None:
    random_state = np.random.default_rng(1)
    recall, counts = np.array([0.9, 0.7, 0.4, 0.2]), np.array([400.0, 60.0, 25.0, 12.0])
    inside = 0
    for _ in range(2000):
        measured = random_state.binomial(counts.astype(int), recall) / counts
        half = interval(measured, counts)
        assert half is not None
        inside += abs(measured.mean() - recall.mean()) <= half
    assert 0.93 < inside / 2000 < 0.985


def test_ticks_are_round_and_within_the_scale() -> None:
    ends = [(0.02, 0.7), (1, 5000), (3, 90)]
    for (low, high), log in itertools.product(ends, (False, True)):
        scale = Scale(low, high, 0, 100, log)
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 12
        assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)
        assert [scale(tick) for tick in ticks] == sorted(scale(tick) for tick in ticks)
        assert (scale(low), scale(high)) == (0, 100)
        if not log:
            assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])
        assert all(float(f"{tick:.2g}") == pytest.approx(tick) for tick in ticks)


def test_a_map_keeps_groups_together() -> None:
    random_state = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 30)
    points = 6 * np.eye(8)[groups] + random_state.normal(size=(120, 8)) * 0.3
    places = embed(points)
    assert places.min() == 0
    assert places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(120)
    assert (groups[distance.argmin(1)] == groups).mean() == 1


def test_colors_run_from_the_frequent_to_the_rare() -> None:
    assert frequency_color(0, 10) == "#0072b2"
    assert frequency_color(9, 10) == "#d55e00"
    assert len({frequency_color(rank, 100) for rank in range(100)}) == 100
