"""Statistics over seeds: spread, paired differences and their tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

MISSING = "-"
MOST_EXACT_PAIRS = 16
"""With more pairs, the choices of signs are too many to try."""
FEWEST_PAIRS = 3
"""With fewer pairs nothing is tested: two that happen to agree would look certain."""


def spread(values: Sequence[float], digits: int = 1, deviation_digits: int | None = None) -> str:
    """Return mean ± standard deviation of the sample; the mean of one value; ``-`` of none."""
    if not len(values):
        return MISSING
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    deviation_digits = digits if deviation_digits is None else deviation_digits
    return f"{mean} ± {np.std(values, ddof=1):.{deviation_digits}f}"


@dataclass(frozen=True)
class Difference:
    """Paired differences between two methods, one for each seed.

    The intervals and tests are NaN with fewer than three pairs.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def deviation(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def better(self) -> int:
        return sum(value > 0 for value in self.values)

    @property
    def half_interval(self) -> float:
        """Half of the 95% interval of the mean, by Student's t."""
        if len(self.values) < FEWEST_PAIRS:
            return math.nan
        from scipy.special import stdtrit

        n = len(self.values)
        return float(stdtrit(n - 1, 0.975)) * self.deviation / math.sqrt(n)

    @property
    def t_test(self) -> float:
        """Two-sided p of the paired t test; NaN if all differences are equal."""
        if len(self.values) < FEWEST_PAIRS or self.deviation <= 1e-9 * abs(self.mean):
            return math.nan
        from scipy.special import stdtr

        n = len(self.values)
        return float(2 * stdtr(n - 1, -abs(self.mean) / (self.deviation / math.sqrt(n))))

    @property
    def sign_flip_test(self) -> float:
        """Two-sided p of the exact permutation test, which assumes only symmetry.

        The share of all choices of signs whose mean is at least as far from 0. It is at least
        2 / 2^n, so fewer than six pairs never give 0.05. NaN with more than 16 pairs.
        """
        if not FEWEST_PAIRS <= len(self.values) <= MOST_EXACT_PAIRS:
            return math.nan
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(self.values))))
        means = np.abs(signs @ np.array(self.values))
        return float((means >= means[0] * (1 - 1e-12)).mean())


def pair(one: Mapping[Key, float], other: Mapping[Key, float]) -> Difference:
    """Return the differences *one* - *other* at common keys, without NaN."""
    values = (one[key] - other[key] for key in one if key in other)
    return Difference(tuple(value for value in values if not math.isnan(value)))


def holm(values: Sequence[float]) -> list[float]:
    """Return p values adjusted for multiple tests (Holm, 1979); NaN stays and does not count."""
    order = sorted((k for k, p in enumerate(values) if not math.isnan(p)), key=lambda k: values[k])
    adjusted, highest = [math.nan] * len(values), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[k]))
        adjusted[k] = highest
    return adjusted
