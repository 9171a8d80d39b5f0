"""The exponential moving average of a network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from daso.nets.network import Network


class MovingAverage:
    """A copy of a network that follows it slowly (Tarvainen & Valpola, 2017).

    After step t (from 0) the decay is ``min(1 - 1 / (t + 1), decay)``: the first update copies.
    Floating-point buffers are averaged like parameters; integer ones are copied.

    Args:
        network: network to follow; it is deep-copied.
        decay: rho, 0 <= decay < 1.

    Attributes:
        network: averaged copy; its parameters require no gradient.
    """

    def __init__(self, network: Network, decay: float = 0.999) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        self._copies = [(a, v) for a, v in pairs if not a.is_floating_point()]
        self._averages = [a for a, _ in pairs if a.is_floating_point()]
        self._values = [v for a, v in pairs if a.is_floating_point()]

    def share(self, step: int) -> float:
        """Return 1 - the decay after step *step*, counted from 0, for ``move``."""
        return 1 - min(1 - 1 / (step + 1), self.decay)

    @torch.no_grad()
    def move(self, share: float | Tensor) -> None:
        """Move the average by a *share*, a number or tensor (), of the distance to the network."""
        if isinstance(share, Tensor):
            distances = torch._foreach_sub(self._values, self._averages)
            torch._foreach_mul_(distances, share)
            torch._foreach_add_(self._averages, distances)
        else:
            torch._foreach_lerp_(self._averages, self._values, share)
        for average, value in self._copies:
            average.copy_(value)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(p.data for p in module.parameters()), *module.buffers()]
