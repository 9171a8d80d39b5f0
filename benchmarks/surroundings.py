"""What a step and a run need beyond the network: DASO's own work, evaluations, checkpoints."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cases import Case, Variant
from conventional import Conventional, ConventionalDASO, ImageBatch
from stopwatch import Stopwatch
from torch import Tensor, nn

from daso.train.allocator import keep_freed_memory
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
            training.average.network.encoder = (
                FixedFeatures(5 * batch, dim).to(device).requires_grad_(False)
            )
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
        return {
            s: median[s, "fixmatch+daso"] - median[s, "fixmatch"] for s in ("conventional", "ours")
        }


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
