"""How near each convolution of a network comes to what the machine computes at best.

    python benchmarks/layers.py --network wrn-28-2 --images 320

Forward pass, gradient of the input and gradient of the weights of every different convolution, as a training step
calls them, in GFLOP/s and as the share of the machine's limit (see benchmarks/limits.py); processor time of one thread.
The last column is the time of all convolutions of this shape in a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import tyro
from limits import Limits
from stopwatch import Clock, Stopwatch
from torch import Tensor, nn

from daso.nets.network import Precision, build_encoder
from daso.train.allocator import keep_freed_memory

Shape = tuple[int, int, int, int, int]
"""Input and output channels, side of the input, side of the kernel, stride."""


@dataclass(frozen=True)
class Layers:
    """Measure the convolutions of a network."""

    network: str = "wrn-28-2"
    """Name of the network."""
    images: int = 320
    """Of a pass: with 64 labelled ones, 64 + 2 x 128."""
    channels: int = 3
    """Of the images."""
    side: int = 32
    """Of the images, in pixels."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    """Which precisions."""
    rounds: int = 7
    """The median of so many is taken."""
    clock: Clock = "processor"
    """wall or processor."""


def shapes(layers: Layers) -> Counter[Shape]:
    """Return how often each convolution occurs in the network, from the first layer on."""
    found: Counter[Shape] = Counter()

    def note(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        conv = cast(nn.Conv2d, module)
        found[
            conv.in_channels,
            conv.out_channels,
            given[0].shape[2],
            conv.kernel_size[0],
            conv.stride[0],
        ] += 1

    encoder = cast(nn.Module, build_encoder(layers.network, layers.channels, layers.side)).eval()
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        encoder(torch.zeros(1, layers.channels, layers.side, layers.side))
    return found


def passes(
    shape: Shape, images: int, dtype: torch.dtype
) -> tuple[float, dict[str, Callable[[], object]]]:
    """Return the operations of a pass and the three passes of a convolution, on tensors laid out as in training."""
    inputs, outputs, side, kernel, stride = shape

    def tensor(*sizes: int) -> Tensor:
        return torch.randn(*sizes).to(dtype).contiguous(memory_format=torch.channels_last)

    x, weight = tensor(images, inputs, side, side), tensor(outputs, inputs, kernel, kernel)
    forward = partial(torch.conv2d, x, weight, None, stride, kernel // 2)
    gradient = tensor(*forward().shape)

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight,
            None,
            [stride] * 2,
            [kernel // 2] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            mask,
        )

    work: dict[str, Callable[[], object]] = {
        "forward": forward,
        "input's gradient": partial(backward, [True, False, False]),
        "weights' gradient": partial(backward, [False, True, False]),
    }
    if shape[0] <= 3:
        del work["input's gradient"]  # images have none
    return 2.0 * gradient.numel() * inputs * kernel**2, work


@torch.no_grad()
def main(layers: Layers) -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    limits = Limits("cpu", layers.clock, 2048).rates()
    watch = Stopwatch(torch.device("cpu"), layers.clock)
    for precision in layers.precisions:
        limit = limits[precision]
        print(
            f"\n{layers.network}, {layers.images} images, {precision}: at best {limit:.0f} GFLOP/s on one thread"
        )
        total, done = 0.0, 0.0
        for shape, count in shapes(layers).items():
            flops, work = passes(shape, layers.images, getattr(torch, precision))
            times: dict[str, list[float]] = {name: [] for name in work}
            for _ in range(layers.rounds):
                for name, function in work.items():
                    watch.lap("")
                    function()
                    watch.lap("work")
                    times[name].append(watch.take()["work"])
            seconds = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
            inputs, outputs, side, kernel, stride = shape
            label = (
                f"{count} x {kernel}x{kernel}, {inputs} to {outputs}, {side} px"
                + f", stride {stride}" * (stride > 1)
            )
            cells = "".join(
                f"{name:>18} {flops / second / 1e9:5.0f} {flops / second / 1e9 / limit:4.0%}"
                for name, second in seconds.items()
            )
            total += count * sum(seconds.values())
            done += count * flops * len(seconds)
            print(f"{label:36}{cells}{1000 * count * sum(seconds.values()):8.0f} ms")
        print(
            f"all: {total:.2f} s, {done / total / 1e9:.0f} GFLOP/s, {done / total / 1e9 / limit:.0%} of the limit"
        )


if __name__ == "__main__":
    main(tyro.cli(Layers))
