"""Training steps to measure, ours and the conventional one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from conventional import (
    Conventional,
    ConventionalDASO,
    ImageBatch,
    Images,
    Normalization,
    load_batches,
)
from timing import Clock, Stopwatch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from daso.data.images.decoded import DecodedImages as Pool
from daso.data.source import Source
from daso.train.allocator import keep_freed_memory
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare

MEAN, STD = 0.5, 0.25
VIEW_STEPS = 16
"""Steps over which the time of making views is averaged."""


@dataclass(frozen=True)
class Setting:
    """Sizes of a step: *batch* labeled, twice as many unlabeled images."""

    network: str
    batch: int
    channels: int
    side: int
    needs_cuda: bool = False


@dataclass(frozen=True)
class Variant:
    """A way to compute our step."""

    precision: str = "float32"
    weak_pass: str = "joint"
    compile: bool = False
    recompute: bool = False
    cuda_graph: bool = False
    tf32: bool = False

    def columns(self) -> dict[str, str]:
        norm = "joint batch norm" if self.weak_pass == "joint" else "weak view apart"
        ways = {"compiled": self.compile, "recomputed": self.recompute, "recorded": self.cuda_graph}
        way = " and ".join(name for name, chosen in ways.items() if chosen) or "eager"
        precision = "tf32" if self.tf32 else self.precision
        return {"precision": precision, "batch_norm": norm, "way": way}

    def __str__(self) -> str:
        return ", ".join(self.columns().values())

    def options(self) -> list[str]:
        names = ("compile", "recompute", "cuda_graph")
        switches = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]
        apart = ["--weak-pass", self.weak_pass] if self.weak_pass != "joint" else []
        return ["--precision", self.precision, *apart, *switches]

    def set_tf32(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32


@dataclass(frozen=True)
class Case:
    """A setting, a method, K classes, a device, and the clock that measures it."""

    setting: Setting
    method: str
    num_classes: int
    device: str
    clock: Clock = "wall"

    def source(self, test: int = 1) -> Source:
        """Return images of noise: the time of a step does not depend on their content."""
        random, setting = np.random.default_rng(0), self.setting

        def pool(count: int) -> Pool:
            shape = (count, setting.channels, setting.side, setting.side)
            labels = np.arange(count, dtype=np.int64) % self.num_classes
            return Pool(random.integers(0, 256, shape, np.uint8), labels)

        labeled = pool(max(4 * setting.batch, 2 * self.num_classes))
        names = tuple(map(str, range(self.num_classes)))
        mean, std = (MEAN,) * setting.channels, (STD,) * setting.channels
        unlabeled = pool(8 * setting.batch)
        return Source("noise", names, labeled, unlabeled, test=pool(test), mean=mean, std=std)

    def prepare(
        self,
        variant: Variant,
        source: Source,
        options: Mapping[str, Any] | None = None,
        **train: Any,
    ) -> Prepared:
        """Prepare our training as the command line does; DASO acts from the first step on."""
        hyperparameters: dict[str, Any] = {"warmup_steps": 0} if "daso" in self.method else {}
        if variant.weak_pass != "joint":
            hyperparameters |= {"weak_pass": variant.weak_pass}
        values: dict[str, Any] = {
            "batch": self.setting.batch,
            "unlabeled_ratio": 2,
            "network": self.setting.network,
            "precision": variant.precision,
            "compile": variant.compile,
            "recompute": variant.recompute,
            "cuda_graph": variant.cuda_graph,
            "device": self.device,
            **train,
        }
        hyperparameters |= options or {}
        config = RunConfig(
            "noise", self.method, method_options=hyperparameters, train=TrainOptions(**values)
        )
        return prepare(config, source)


class Side(ABC):
    """A training whose steps are measured; a subclass defines ``step`` and ``features``."""

    device: torch.device
    watch: Stopwatch

    @abstractmethod
    def step(self) -> Tensor | None: ...

    @abstractmethod
    def features(self) -> None: ...

    def round(self, steps: int) -> dict[str, float]:
        """Return the mean seconds of each part of a step, and those of the EMA features."""
        self.watch.lap("")
        for _ in range(steps):
            self.step()
        seconds = {name: value / steps for name, value in self.watch.take().items()}
        return {**seconds, "EMA features": self.watch.time(self.features)}

    def flops(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.step()
        self.watch.take()
        return int(counter.get_total_flops())


class Ours(Side):
    """Our step, in a process set up as by ``daso train``."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.prepared = case.prepare(variant, case.source())
        self.training = self.prepared.training
        self.device = next(self.training.network.parameters()).device
        self.watch = Stopwatch(self.device, case.clock)
        self.ready = [self.prepared.batches(0)]
        self.drawn = 1

    def round(self, steps: int) -> dict[str, float]:
        # The views of several steps are made at once: over a few steps, their time would be that of
        # none or of many.
        count = max(steps, VIEW_STEPS)
        self.watch.lap("")
        self.ready = [self.prepared.batches(self.drawn + number) for number in range(count)]
        self.watch.lap("data")
        self.drawn += count
        data = self.watch.take()["data"] / count
        seconds = super().round(steps)
        return {**seconds, "data": data, "step": seconds["step"] + data}

    def step(self) -> None:
        with self.watch.parts(self.training.optimizer, self.training.average, "move"):
            self.training.advance(self.ready[self.training.step % len(self.ready)])
        self.watch.lap("other")

    @torch.no_grad()
    def features(self) -> None:
        batch = self.prepared.config.train.batch
        self.training.average.network.train()
        self.training.average.network(self.prepared.data.labeled.images[:batch])


class Theirs(Side):
    """The conventional step, with the allocator's setting that its users can have too."""

    def __init__(self, case: Case, workers: int) -> None:
        keep_freed_memory()
        source = case.source()
        assert source.unlabeled is not None
        prepared = case.prepare(Variant(), source)
        network, views = prepared.training.network, prepared.config.augmentation
        assert views.crop_padding is not None
        assert views.cutout is not None
        self.device = next(network.parameters()).device
        self.watch = Stopwatch(self.device, case.clock)
        daso = ConventionalDASO(case.num_classes) if "daso" in case.method else None
        self.pipeline = Conventional(network.encoder, network.heads["class"], daso)
        sizes = views.crop_padding, views.cutout
        normalization = Normalization(prepared.data.mean, prepared.data.std)
        labels = torch.from_numpy(source.train.labels)
        self.batches = load_batches(
            Images(pillow_layout(source.train.images), labels, normalization, *sizes),
            Images(pillow_layout(source.unlabeled.images), None, normalization, *sizes),
            case.setting.batch,
            2,
            workers,
        )
        self.labeled = next(self.batches).labeled.to(self.device)

    def step(self) -> Tensor:
        parts = (part.to(self.device, non_blocking=True) for part in next(self.batches))
        batch = ImageBatch(*parts)
        self.watch.lap("data")
        with self.watch.parts(self.pipeline.optimizer, self.pipeline, "update_average"):
            losses = self.pipeline.advance(batch)
        self.watch.lap("other")
        return torch.stack(list(losses.values())).sum()

    def features(self) -> None:
        self.pipeline.teacher_features(self.labeled)


def pillow_layout(images: Any) -> Any:
    """Return images (N, C, H, W) in Pillow's layout: (N, H, W, 3), or (N, H, W) for one channel."""
    if images.shape[1] == 1:
        return images[:, 0]
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def measure_limits(device: str, clock: Clock, size: int) -> dict[str, float]:
    """Return the machine's highest GFLOP/s by precision, and the GB/s read and written by a copy.

    A CPU has different libraries for matrix products and convolutions. There the faster one counts;
    the convolution is at its best, with 128 channels on images that stay in the cache.
    """
    place = torch.device(device)
    watch = Stopwatch(place, clock)

    def seconds(function: Callable[[], object]) -> float:
        return min(watch.time(function) for _ in range(4))

    limits = {}
    variants = [Variant("float32"), Variant("bfloat16")]
    variants += [Variant("float32", tf32=True)] if place.type == "cuda" else []
    for variant in variants:
        variant.set_tf32()
        dtype = getattr(torch, variant.precision)
        a = torch.ones(size, size, dtype=dtype, device=place)
        rate = 2 * size**3 / seconds(partial(torch.mm, a, a, out=torch.empty_like(a))) / 1e9
        if place.type == "cpu":
            count, channels, layout = size // 32, 128, torch.channels_last
            x = torch.ones(count, channels, 8, 8, dtype=dtype).contiguous(memory_format=layout)
            weight = torch.ones(channels, channels, 3, 3, dtype=dtype)
            weight = weight.contiguous(memory_format=layout)
            taken = seconds(partial(torch.conv2d, x, weight, padding=1))
            rate = max(rate, 2 * x.numel() * 9 * channels / taken / 1e9)
        limits[variant.columns()["precision"]] = rate
    a = torch.ones(64 * size**2 // 4, device=place)
    limits["copy"] = 8 * a.numel() / seconds(partial(torch.empty_like(a).copy_, a)) / 1e9
    return limits
