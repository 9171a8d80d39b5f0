"""The order in which training visits images, and the seeds of its random streams: functions, without state."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive_seed(seed: int, purpose: str, index: int) -> int:
    """Return the seed, below 2**63, of one random stream among many, independent of the others."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Order:
    """Shuffled passes over n images, as a function of the step alone: nothing to save, nothing to restore.

    Every image comes once per pass; a batch may span two passes (or more, where n < batch).

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
        self._passes = {number: self._pass(number) for number in wanted}
        images = torch.cat([self._passes[number] for number in wanted])
        start = first - wanted[0] * self.count
        return images[start : start + self.batch]

    def _pass(self, number: int) -> Tensor:
        if number in self._passes:
            return self._passes[number]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.name, number))
        return torch.randperm(self.count, generator=generator)


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
        generator = torch.Generator().manual_seed(derive_seed(self.seed, f"weighted {self.name}", step))
        return torch.multinomial(self.weights, self.batch, replacement=True, generator=generator)
