"""The order in which training visits images, and the seeds of its random streams."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST_LISTED = 2**24
"""Images up to which an order is a list; a list of a billion numbers would take 8 GB."""
FEISTEL_ROUNDS = 6


def derive_seed(seed: int, purpose: str, index: int) -> int:
    """Return the seed, below 2**63, of one random stream, independent of all others."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Order:
    """Shuffled passes over n images as a function of the step alone, without state.

    Every image comes once per pass. A batch may span two passes, or more where n < batch. Beyond
    16 million images, indices are computed one by one instead of listed.

    Args:
        name: separates the orders of a run's pools.
    """

    def __init__(self, count: int, batch: int, seed: int, name: str) -> None:
        self.count, self.batch, self.seed, self.name = count, batch, seed, name
        self._passes: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Return the indices, int64 (batch,) on the host, of step *step*, counted from 0."""
        first, last = step * self.batch, (step + 1) * self.batch - 1
        passes = range(first // self.count, last // self.count + 1)
        if self.count > LARGEST_LISTED:
            places = np.arange(first, last + 1)
            return torch.cat([self._computed(number, places) for number in passes])
        self._passes = {number: self._pass(number) for number in passes}
        images = torch.cat([self._passes[number] for number in passes])
        start = first - passes[0] * self.count
        return images[start : start + self.batch]

    def _computed(self, number: int, places: npt.NDArray[np.int64]) -> Tensor:
        """Return the images at those *places*, counted through all passes, that lie in one pass."""
        within = places[places // self.count == number] - number * self.count
        seed = derive_seed(self.seed, self.name, number)
        return torch.from_numpy(shuffled(within, self.count, seed))

    def _pass(self, number: int) -> Tensor:
        if number in self._passes:
            return self._passes[number]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.name, number))
        return torch.randperm(self.count, generator=generator)


def shuffled(places: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return where a shuffle of *count* numbers puts some of them, without listing the others.

    A Feistel network permutes the numbers below the next power of 4. Results out of range are
    permuted again until they are in range (Black, Rogaway: *Ciphers with Arbitrary Finite Domains*,
    CT-RSA 2002).

    Args:
        places: int64, 0 <= place < count.
    """
    half = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(seed).integers(0, 2**63, FEISTEL_ROUNDS, dtype=np.uint64)
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
    """Draws with replacement, by weight, as a function of the step alone.

    Args:
        weights: float64, (n,), relative probability of each image.
    """

    def __init__(self, weights: Tensor, batch: int, seed: int, name: str) -> None:
        self.weights, self.batch, self.seed, self.name = weights, batch, seed, name

    def __call__(self, step: int) -> Tensor:
        """Return the indices, int64 (batch,) on the host, of step *step*, counted from 0."""
        seed = derive_seed(self.seed, f"weighted {self.name}", step)
        generator = torch.Generator().manual_seed(seed)
        return torch.multinomial(self.weights, self.batch, replacement=True, generator=generator)
