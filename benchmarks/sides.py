"""Both sides of a comparison: each can train a step, from the images in the data set to the moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np
import torch
from cases import Case, Variant
from conventional import (
    Conventional,
    ConventionalDASO,
    ImageBatch,
    Images,
    Normalization,
    load_batches,
)
from stopwatch import Stopwatch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from daso.train.allocator import keep_freed_memory

VIEW_STEPS = 16
"""Steps over which the time of making views is averaged."""


class Side(Protocol):
    """What is compared."""

    watch: Stopwatch

    def step(self) -> None:
        """Train one step, with a lap of the watch after each part."""

    def features(self) -> None:
        """Compute the moving average's features of a labelled batch."""


@contextmanager
def watched(
    watch: Stopwatch, optimizer: torch.optim.Optimizer, average: object, update: str
) -> Iterator[None]:
    """Take laps around the backward pass, the optimiser and the moving average."""
    backward = Tensor.backward
    inside = {
        "backward": (Tensor, watch.wrap(backward, "backward", "forward")),
        "step": (optimizer, watch.wrap(optimizer.step, "optimizer")),
        update: (average, watch.wrap(getattr(average, update), "moving average")),
    }
    for name, (owner, function) in inside.items():
        setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(Tensor, "backward", backward)  # noqa: B010 - a method cannot be assigned to, for mypy
        del optimizer.step, average.__dict__[update]


def measure_round(side: Side, steps: int) -> dict[str, float]:
    """Return the seconds of each part of a step, means of *steps*; those of the EMA features on top."""
    watch = side.watch
    watch.lap("")
    for _ in range(steps):
        side.step()
    seconds = {name: value / steps for name, value in watch.take().items()}
    watch.lap("")
    side.features()
    watch.lap("EMA features")
    return seconds | {"EMA features": watch.take()["EMA features"]}


def count_flops(side: Side) -> int:
    """Count the operations of a step."""
    with FlopCounterMode(display=False) as counter:
        side.step()
    return int(counter.get_total_flops())


class Ours:
    """The package's step, in a process set up as the commands that train set up theirs."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.prepared = case.prepare(variant, case.source())
        self.training = self.prepared.training
        device = next(self.training.network.parameters()).device
        self.watch = Stopwatch(device, case.clock)
        self.ready = [self.prepared.batches(0)]
        self.drawn = 1

    def round(self, steps: int) -> dict[str, float]:
        # Views are made for several steps at once: over a few steps, their time would be that of none or of many.
        count = max(steps, VIEW_STEPS)
        self.watch.lap("")
        self.ready = [self.prepared.batches(self.drawn + number) for number in range(count)]
        self.watch.lap("data")
        self.drawn += count
        data = self.watch.take()["data"] / count
        seconds = measure_round(self, steps)
        return {**seconds, "data": data, "step": seconds["step"] + data}

    def step(self) -> None:
        with watched(self.watch, self.training.optimizer, self.training.average, "move"):
            self.training.advance(self.ready[self.training.step % len(self.ready)])
        self.watch.lap("other")

    def flops(self) -> int:
        return count_flops(self)

    @torch.no_grad()
    def features(self) -> None:
        self.training.average.network.train()
        self.training.average.network(self._labeled())

    def _labeled(self) -> Tensor:
        return self.prepared.data.labeled.images[: self.prepared.config.train.batch]


class Theirs:
    """The conventional step."""

    def __init__(self, case: Case, workers: int) -> None:
        source = case.source()
        assert source.unlabeled is not None
        prepared = case.prepare(Variant("float32"), source)
        self.device = next(prepared.training.network.parameters()).device
        self.watch = Stopwatch(self.device, case.clock)
        augmentation, size = prepared.config.augmentation, case.setting.batch
        assert augmentation.crop_padding is not None
        assert augmentation.cutout is not None
        daso = ConventionalDASO(case.num_classes) if "daso" in case.method else None
        network = prepared.training.network
        self.pipeline = Conventional(cast(nn.Module, network.encoder), network.heads["class"], daso)
        sizes = augmentation.crop_padding, augmentation.cutout
        normalization = Normalization(prepared.data.mean, prepared.data.std)
        labels = torch.from_numpy(source.train.labels)
        self.batches = load_batches(
            Images(pillow_layout(source.train.images), labels, normalization, *sizes),
            Images(pillow_layout(source.unlabeled.images), None, normalization, *sizes),
            size,
            2,
            workers,
        )
        self.labeled = next(self.batches).labeled.to(self.device)

    def step(self) -> None:
        batch = ImageBatch(
            *(part.to(self.device, non_blocking=True) for part in next(self.batches))
        )
        self.watch.lap("data")
        with watched(self.watch, self.pipeline.optimizer, self.pipeline, "update_average"):
            self.pipeline.advance(batch)
        self.watch.lap("other")

    def round(self, steps: int) -> dict[str, float]:
        return measure_round(self, steps)

    def flops(self) -> int:
        return count_flops(self)

    def features(self) -> None:
        self.pipeline.teacher_features(self.labeled)


def pillow_layout(images: Any) -> Any:
    """Turn (N, C, H, W) into what Pillow takes, one image after another: (N, H, W, 3), or (N, H, W) of one channel."""
    return (
        images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    )
