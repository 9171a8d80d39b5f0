"""The order in which training visits images, and the seeds of its random streams: functions, without state."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST_LISTED = 2**24
"""Of larger pools the order is computed place by place: a list of a billion numbers takes 8 GB."""
ROUNDS = 6


def derive_seed(seed: int, purpose: str, index: int) -> int:
    """Return the seed, below 2**63, of one random stream among many, independent of the others."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Order:
    """Shuffled passes over n images, as a function of the step alone: nothing to save, nothing to restore.

    Every image comes once per pass; a batch may span two passes (or more, where n < batch). Of more than 16 million
    images no list is made.

    Args:
        count: n, at least 1.
        batch: images per step, at least 1.
        seed: of the order.
        name: keeps the orders of one run's pools apart.
    """

    def __init__(self, count: int, batch: int, seed: int, name: str) -> None:
        self.count, self.batch, self.seed, self.name = count, batch, seed, name
        self._passes: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Return the indices, int64 (batch,) on the host, of step *step*, counted from 0."""
        first, last = step * self.batch, (step + 1) * self.batch - 1
        wanted = range(first // self.count, last // self.count + 1)
        if self.count > LARGEST_LISTED:
            places = np.arange(first, last + 1)
            return torch.cat([self._computed(number, places) for number in wanted])
        self._passes = {number: self._pass(number) for number in wanted}
        images = torch.cat([self._passes[number] for number in wanted])
        start = first - wanted[0] * self.count
        return images[start : start + self.batch]

    def _computed(self, number: int, places: npt.NDArray[np.int64]) -> Tensor:
        """Return the images of those *places*, counted through all passes, that are in pass *number*."""
        within = places[places // self.count == number] - number * self.count
        return torch.from_numpy(
            shuffled(within, self.count, derive_seed(self.seed, self.name, number))
        )

    def _pass(self, number: int) -> Tensor:
        if number in self._passes:
            return self._passes[number]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.name, number))
        return torch.randperm(self.count, generator=generator)


def shuffled(places: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return where a shuffle of *count* numbers puts some of them, without listing the others.

    A Feistel network permutes the numbers below the next power of 4; what leaves the range is permuted again until it
    is back (Black, Rogaway: *Ciphers with Arbitrary Finite Domains*, CT-RSA 2002).

    Args:
        places: int64, 0 <= place < count.
        count: at most 2**62.
        seed: of the shuffle, 0 <= seed < 2**63.
    """
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(seed).integers(0, 2**63, ROUNDS, dtype=np.uint64)
    values = places.astype(np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & low
        for key in keys:
            mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(32))) & low)
        values[outside] = (left << half) | right
        outside = values >= count
    return values.astype(np.int64)


class WeightedOrder:
    """Draws with replacement, some images more often than others, as a function of the step alone.

    Args:
        weights: float64, (n,), how likely each image is, up to a factor.
        batch: images per step, at least 1.
        seed: of the draws.
        name: keeps the draws of one run's pools apart.
    """

    def __init__(self, weights: Tensor, batch: int, seed: int, name: str) -> None:
        self.weights, self.batch, self.seed, self.name = weights, batch, seed, name

    def __call__(self, step: int) -> Tensor:
        """Return the indices, int64 (batch,) on the host, of step *step*, counted from 0."""
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, f"weighted {self.name}", step)
        )
        return torch.multinomial(self.weights, self.batch, replacement=True, generator=generator)
