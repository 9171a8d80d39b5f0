"""What the machine can do at best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from stopwatch import Clock, Stopwatch


class Limits:
    """What the machine can do at best."""

    def __init__(self, device: str, clock: Clock, size: int) -> None:
        self.device = torch.device(device)
        self.size = size
        self.watch = Stopwatch(self.device, clock)

    def _seconds(self, function: Callable[[], object]) -> float:
        times = []
        for _ in range(4):
            self.watch.lap("")
            function()
            self.watch.lap("work")
            times.append(self.watch.take()["work"])
        return min(times)

    def rates(self) -> dict[str, float]:
        """Return GFLOP/s of arithmetic by precision, and GB/s read and written by a copy.

        On a CPU matrix products and convolutions are of different libraries: what counts is the faster one, the
        convolution at its best, of 128 channels on images that stay in the cache.
        """
        found = {}
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            a = torch.ones(self.size, self.size, dtype=dtype, device=self.device)
            found[name] = (
                2
                * self.size**3
                / self._seconds(partial(torch.mm, a, a, out=torch.empty_like(a)))
                / 1e9
            )
            if self.device.type == "cpu":
                images, channels = self.size // 32, 128
                x = torch.ones(images, channels, 8, 8, dtype=dtype).contiguous(
                    memory_format=torch.channels_last
                )
                weight = torch.ones(channels, channels, 3, 3, dtype=dtype)
                weight = weight.contiguous(memory_format=torch.channels_last)
                seconds = self._seconds(partial(torch.conv2d, x, weight, padding=1))
                found[name] = max(found[name], 2 * x.numel() * 9 * channels / seconds / 1e9)
        a = torch.ones(64 * self.size**2 // 4, device=self.device)
        found["copy"] = 8 * a.numel() / self._seconds(partial(torch.empty_like(a).copy_, a)) / 1e9
        return found
