"""Spread, paired differences and their tests, against other ways to work them out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from daso.report.compare.statistics import Difference, holm, pair, spread


def test_spread() -> None:
    assert spread([]) == "-"
    assert spread([12.34]) == "12.3"
    assert spread([70.0, 74.0]) == "72.0 ± 2.8"
    assert spread([70.0, 74.0], 1, 2) == "72.0 ± 2.83"


def test_pairs_are_of_what_both_have() -> None:
    assert pair({0: 3.0, 1: 5.0, 2: 1.0}, {1: 1.0, 0: 4.0, 3: 9.0}).values == (-1.0, 4.0)
    assert pair({0: math.nan, 1: 5.0}, {0: 1.0, 1: 1.0}).values == (4.0,)


def test_the_t_test_and_its_interval_are_scipys() -> None:
    for n in (3, 5, 12):
        random = np.random.default_rng(n)
        one, other = random.normal(70, 3, n), random.normal(69, 3, n)
        difference = Difference(tuple(one - other))
        assert difference.t_test == pytest.approx(stats.ttest_rel(one, other).pvalue), n
        low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
        assert difference.mean - difference.half_interval == pytest.approx(low), n
        assert difference.mean + difference.half_interval == pytest.approx(high), n


def test_the_sign_flip_test_is_scipys_permutation_test() -> None:
    for n in (3, 5, 8):
        random = np.random.default_rng(n)
        values = random.normal(1, 2, n)
        other = np.zeros(n)
        expected = stats.permutation_test(
            (values, other),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert Difference(tuple(values)).sign_flip_test == pytest.approx(expected.pvalue), n


def test_the_sign_flip_test_holds_its_level() -> None:
    # Under the null hypothesis p is at most 0.25 in a quarter of all cases, whatever the sizes are.
    sizes = (0.1, 0.7, 2.0, 5.0, 11.0)
    ps = [
        Difference(
            tuple(sign * size for sign, size in zip(signs, sizes, strict=True))
        ).sign_flip_test
        for signs in itertools.product((1, -1), repeat=5)
    ]
    for level in (2 / 32, 0.25, 0.5):
        assert np.mean(np.array(ps) <= level + 1e-12) == pytest.approx(level)


def test_too_few_pairs_or_no_spread_say_nothing() -> None:
    for values in ((), (1.0,), (1.0, 1.1)):
        difference = Difference(values)
        assert math.isnan(difference.t_test)
        assert math.isnan(difference.sign_flip_test)
        assert math.isnan(difference.half_interval)
    assert math.isnan(Difference((0.1 + 0.2, 0.3, 0.3)).t_test)
    assert Difference((0.0, 0.0, 0.0)).sign_flip_test == 1
    assert math.isnan(Difference((1.0,) * 17).sign_flip_test)
    assert Difference((1.0, -1.0, 2.0)).better == 2


def test_holm() -> None:
    # By hand: 3 x 0.01, 2 x 0.02, then 0.03 raised to what came before it.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    adjusted = holm([0.5, math.nan, 0.9])
    assert adjusted[0] == 1.0
    assert math.isnan(adjusted[1])
    assert adjusted[2] == 1.0
    assert holm([]) == []
