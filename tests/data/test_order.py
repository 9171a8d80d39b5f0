"""The order of pools too large for a list of it."""

from __future__ import annotations

import numpy as np
import pytest

from daso.train.step import sampling as order_module
from daso.train.step.sampling import Order, shuffled


def test_a_shuffle_has_every_number_once() -> None:
    for count in (1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097):
        for seed in (0, 1, 2**63 - 1):
            numbers = shuffled(np.arange(count), count, seed).tolist()
            assert sorted(numbers) == list(range(count)), (count, seed)


def test_a_shuffle_is_the_same_for_the_same_seed_whatever_is_asked() -> None:
    whole = shuffled(np.arange(10_000), 10_000, 5)
    places = np.array([9_999, 0, 17, 17])
    assert shuffled(places, 10_000, 5).tolist() == whole[places].tolist()
    assert (shuffled(np.arange(10_000), 10_000, 6) != whole).mean() > 0.99


def test_shuffles_are_even() -> None:
    """Each number comes to each place about as often; chi-squared of 40 x 40 cells, 1521 degrees of freedom."""
    found = np.zeros((40, 40))
    for seed in range(4000):
        found[np.arange(40), shuffled(np.arange(40), 40, seed)] += 1
    assert 1250 < ((found - 100) ** 2 / 100).sum() < 1800
    steps = shuffled(np.arange(2**20), 2**20, 0)
    assert abs(np.corrcoef(steps[1:], steps[:-1])[0, 1]) < 0.01


def test_a_billion_images_take_no_list() -> None:
    places = np.arange(10**9 - 50, 10**9)
    found = shuffled(places, 10**9, 1)
    assert len({*found.tolist()}) == 50
    assert found.min() >= 0
    assert found.max() < 10**9


def test_passes_of_a_computed_order_are_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "LARGEST_LISTED", 9)
    order = Order(10, 4, seed=3, name="unlabeled")
    images = np.concatenate([order(step).numpy() for step in range(15)]).reshape(6, 10)
    assert [sorted(one.tolist()) for one in images] == [list(range(10))] * 6
    assert len({tuple(one.tolist()) for one in images}) == 6
    large = Order(10, 25, seed=3, name="unlabeled")
    assert large(1).tolist() == images.ravel()[25:50].tolist()
