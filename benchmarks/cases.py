"""What benchmarks/speed.py trains: sizes, variants of our step, and images of noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from stopwatch import Clock

from daso.data.images.decoded import DecodedImages
from daso.data.source import Source
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare

MEAN, STD = 0.5, 0.25


@dataclass(frozen=True)
class Setting:
    """Sizes of a step: *batch* labelled and twice as many unlabelled images, channels x side x side."""

    network: str
    batch: int
    channels: int
    side: int
    needs_cuda: bool = False


@dataclass(frozen=True)
class Variant:
    """A way to compute our step."""

    precision: str
    weak_pass: str = "joint"
    compile: bool = False
    recompute: bool = False

    def columns(self) -> dict[str, str]:
        """Return the columns of a results file."""
        norm = "joint batch norm" if self.weak_pass == "joint" else "weak view apart"
        way = "compiled" if self.compile else "recomputed" if self.recompute else "eager"
        return {"precision": self.precision, "batch_norm": norm, "way": way}

    def __str__(self) -> str:
        return ", ".join(self.columns().values())

    def options(self) -> list[str]:
        """Return the command line's."""
        switches = [f"--{name}" for name in ("compile", "recompute") if getattr(self, name)]
        apart = ["--weak-pass", self.weak_pass] if self.weak_pass != "joint" else []
        return ["--precision", self.precision, *apart, *switches]


@dataclass(frozen=True)
class Case:
    """What is trained and by which clock: a setting, a method, K classes, a device."""

    setting: Setting
    method: str
    num_classes: int
    device: str
    clock: Clock

    def source(self, test: int = 1) -> Source:
        """Return images of noise: their content does not matter to the time that a step takes."""
        random, setting = np.random.default_rng(0), self.setting

        def pool(count: int) -> DecodedImages:
            shape = (count, setting.channels, setting.side, setting.side)
            labels = np.arange(count, dtype=np.int64) % self.num_classes
            return DecodedImages(random.integers(0, 256, shape, np.uint8), labels)

        labeled = max(4 * setting.batch, 2 * self.num_classes)
        names = tuple(map(str, range(self.num_classes)))
        mean, std = (MEAN,) * setting.channels, (STD,) * setting.channels
        return Source(
            "noise",
            names,
            pool(labeled),
            pool(8 * setting.batch),
            test=pool(test),
            mean=mean,
            std=std,
        )

    def prepare(
        self,
        variant: Variant,
        source: Source,
        options: Mapping[str, Any] | None = None,
        **train: Any,
    ) -> Prepared:
        """Build our training through its public entrance, with *options* of the method.

        Unless they say otherwise, DASO acts from the first step on.
        """
        hyperparameters: dict[str, Any] = {"warmup_steps": 0} if "daso" in self.method else {}
        if variant.weak_pass != "joint":
            hyperparameters |= {"weak_pass": variant.weak_pass}
        hyperparameters |= options or {}
        values: dict[str, Any] = {
            "batch": self.setting.batch,
            "unlabeled_ratio": 2,
            "network": self.setting.network,
            "precision": variant.precision,
            "compile": variant.compile,
            "recompute": variant.recompute,
            "device": self.device,
            **train,
        }
        config = RunConfig(
            "noise", self.method, method_options=hyperparameters, train=TrainOptions(**values)
        )
        return prepare(config, source)
