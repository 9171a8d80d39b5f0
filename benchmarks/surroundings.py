"""What a step and a run need beyond the network: DASO's own work, evaluations, checkpoints, memory."""

from __future__ import annotations

import dataclasses
import inspect
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, Variant
from conventional import Conventional, ConventionalDASO, ImageBatch
from stopwatch import Stopwatch
from torch import Tensor, nn

from daso.data.longtail import SplitOptions
from daso.data.source import Images, Source
from daso.train.allocator import keep_freed_memory
from daso.train.prepare import prepare
from daso.train.run import train_run


class FixedFeatures(nn.Module):
    """Stands in for an encoder where its own time is not wanted: the same features whatever the images."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.values = nn.Parameter(torch.randn(count, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.values[: len(x)]


class OwnWork:
    """The time that DASO adds to FixMatch beyond the EMA features: steps without an encoder, with DASO and without.

    Args:
        case: its method is not looked at; its network should be small, and give as many features as the one
            that is meant.
    """

    def __init__(self, case: Case) -> None:
        self.steps: dict[tuple[str, str], Callable[[], object]] = {}
        self.watch = Stopwatch(torch.device(case.device), case.clock)
        batch, dim = case.setting.batch, 0
        for method in ("fixmatch", "fixmatch+daso"):
            case = dataclasses.replace(case, method=method)
            training = (prepared := case.prepare(Variant("float32"), case.source())).training
            dim = training.network.dim
            device = next(training.network.parameters()).device
            training.network.encoder = FixedFeatures(5 * batch, dim).to(device)
            training.average.network.encoder = FixedFeatures(5 * batch, dim).to(device).requires_grad_(False)
            given = prepared.batches(0)
            # Float images pass through the normalisation: nothing is left to do with pixels.
            small = [torch.zeros(count, 1, 1, 1, device=device) for count in (batch, 2 * batch)]
            given = given._replace(labeled=(small[0],), unlabeled=(small[1], small[1]))
            self.steps["ours", method] = partial(training.advance, given)
            daso = ConventionalDASO(case.num_classes) if "daso" in method else None
            head = training.network.heads["class"]
            pipeline = Conventional(FixedFeatures(5 * batch, dim).to(device), head, daso)
            images = ImageBatch(small[0], given.labels, small[1], small[1])
            self.steps["conventional", method] = partial(pipeline.advance, images)

    def milliseconds(self, rounds: int) -> dict[str, float]:
        """Return the difference of the medians, for both sides."""
        times: dict[tuple[str, str], list[float]] = {key: [] for key in self.steps}
        for number in range(rounds + 3):
            for key, step in self.steps.items():
                self.watch.lap("")
                step()
                self.watch.lap("work")
                seconds = self.watch.take()["work"]
                if number >= 3:
                    times[key].append(seconds)
        median = {key: 1000 * statistics.median(values) for key, values in times.items()}
        return {s: median[s, "fixmatch+daso"] - median[s, "fixmatch"] for s in ("conventional", "ours")}


class Overhead:
    """The time of evaluations, checkpoints and logging: a run whose steps return at once what the first one did."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.case, self.variant = case, variant

    def _period(self, period: int, test: int) -> float:
        source = self.case.source(test)
        prepared = self.case.prepare(self.variant, source, steps=2 * period, evaluate_every=period)
        training, batch = prepared.training, prepared.batches(0)
        result = training.advance(batch)
        training.step = 0

        def advance(_: object) -> object:
            training.step += 1
            return result

        setattr(training, "advance", advance)  # noqa: B010 - a method cannot be assigned to, for mypy
        still: Any = {"batches": lambda step: batch}
        watch = Stopwatch(batch.labels.device, self.case.clock)
        with tempfile.TemporaryDirectory() as folder:
            for row in train_run(dataclasses.replace(prepared, **still), Path(folder) / "run"):
                if row["event"] == "evaluate":
                    watch.lap("")
        return watch.take()["step"]

    def seconds(self, period: int, test: int, wanted: int) -> dict[str, float]:
        """Return the seconds in every *period* steps: of an evaluation of *wanted* images, and of the rest.

        Two evaluations, of *test* and of three times as many images, tell one from the other.
        """
        few, many = self._period(period, test), self._period(period, 3 * test)
        evaluation = max(0.0, many - few) / (2 * test)
        return {
            "evaluation": evaluation * wanted,
            "checkpoint and logging": max(0.0, few - evaluation * test),
        }


class Memory:
    """Host memory of a run."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.case, self.variant = case, variant

    def peak(self, train: int, test: int, split: SplitOptions | None) -> dict[str, float]:
        """Return the peak in MB with the data at hand, and after two training steps and an evaluation.

        The evaluation is of a part of the test images: it goes through them in pieces, more of them take only time.
        """
        random, setting = np.random.default_rng(0), self.case.setting

        def pool(count: int) -> Images:
            images = random.integers(0, 256, (count, setting.channels, setting.side, setting.side), np.uint8)
            return Images(images, np.arange(count, dtype=np.int64) % self.case.num_classes)

        names = tuple(map(str, range(self.case.num_classes)))
        unlabeled = None if split else pool(8 * setting.batch)
        # Handed over and not held here, as the command line does.
        source = [Source("noise", names, pool(train), unlabeled, test=pool(test))]
        config = self.case.prepare(self.variant, self.case.source()).config
        config = dataclasses.replace(
            config,
            split=split or SplitOptions(),
            train=dataclasses.replace(config.train, steps=2, evaluate_every=2),
        )
        prepared = prepare(config, source.pop())
        found = {"data": peak_megabytes()}
        whole = prepared.data
        assert whole.test is not None
        part = dataclasses.replace(
            whole.test, images=whole.test.images[:1024], labels=whole.test.labels[:1024]
        )
        data = dataclasses.replace(whole, test=part, holdout=None)
        prepared = dataclasses.replace(prepared, data=data)
        with tempfile.TemporaryDirectory() as folder:
            for _ in train_run(prepared, Path(folder) / "run"):
                pass
        return found | {"training": peak_megabytes()}


def peak_megabytes() -> float:
    """Return the most memory that this process has had."""
    import pathlib
    import resource
    import sys

    status = pathlib.Path("/proc/self/status")
    if status.exists():  # what getrusage says may be of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_torch() -> float:
    """Return the peak in MB of a process that only imports torch."""
    code = f"import torch\n{inspect.getsource(peak_megabytes)}\nprint(peak_megabytes())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(result.stdout)
