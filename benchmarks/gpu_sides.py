"""What benchmarks/gpu.py measures, each in a process of its own: our step in several ways, the conventional one."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import statistics
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from cases import Case, Variant
from conventional import ImageBatch
from limits import Limits
from sides import Theirs
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from daso.train.loop import fit
from daso.train.prepare import Prepared

Numbers = dict[str, float]

PROFILED_STEPS = 16
KERNELS = 12


@dataclass(frozen=True)
class Way(Variant):
    """A way to compute our step, on a GPU.

    Attributes:
        tf32: convolutions and matrix products of float32 keep 10 bits of a number.
        graph: the step is recorded as a CUDA graph.
        search: cuDNN tries its algorithms first and keeps the fastest.
    """

    tf32: bool = False
    graph: bool = False
    search: bool = False

    def __str__(self) -> str:
        words = ["tf32" if self.tf32 else self.precision, "channels-last"]
        words += ["weak view apart"] * (self.weak_pass != "joint")
        words += [name for name in ("search", "compile", "graph") if getattr(self, name)]
        return ", ".join(words)

    def apply(self) -> None:
        """Set what is set for a whole process."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.search


class Loop(abc.ABC):
    """Steps one after the other, as in a run, batches included; their time is taken where all of them are done."""

    device: torch.device

    @abc.abstractmethod
    def step(self) -> Tensor:
        """Train a step on a new batch and return its loss."""

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, steps: int) -> float:
        """Return the time of a step, mean of *steps*."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - start) / steps

    def waits(self, steps: int) -> float | None:
        """Return how often the host waits for the device in a step, as far as torch sees it, mean of *steps*."""
        if self.device.type != "cuda":
            return None
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(steps):
                    self.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught) / steps

    def megabytes(self) -> float | None:
        """Return the most device memory that tensors took."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else None

    def flops(self) -> int:
        """Count the operations of a step."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        return int(counter.get_total_flops())

    def kernels(self) -> dict[str, Any]:
        """Return the milliseconds of a step, those in which the device computes, and those of the longest kernels."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(
            activities=activities[: 1 + (self.device.type == "cuda")]
        ) as profile:
            seconds = self.seconds(PROFILED_STEPS)
        on_cuda = self.device.type == "cuda"
        spent = {
            event.key: (event.self_device_time_total if on_cuda else event.self_cpu_time_total)
            / 1000
            / PROFILED_STEPS
            for event in profile.key_averages()
            if not event.is_user_annotation
            and (not on_cuda or event.device_type == DeviceType.CUDA)
        }
        longest = sorted(spent.items(), key=lambda item: -item[1])[:KERNELS]
        return {"step": 1000 * seconds, "busy": sum(spent.values()), "longest": dict(longest)}


class OurLoop(Loop):
    """The package's step."""

    def __init__(self, case: Case, way: Way) -> None:
        way.apply()
        self.prepared = prepare_way(case, way)
        self.device = next(self.prepared.training.network.parameters()).device

    def step(self) -> Tensor:
        training = self.prepared.training
        return training.advance(self.prepared.batches(training.step))[1]

    def parts(self, steps: int) -> Numbers:
        """Return the seconds of a step's batch and of the rest: of both, what the host is busy for, and all of it."""
        training, batches = self.prepared.training, self.prepared.batches
        first = training.step
        self.wait()
        start = time.perf_counter()
        ready = [batches(first + number) for number in range(steps)]
        drawn = time.perf_counter()
        self.wait()
        made = time.perf_counter()
        for batch in ready:
            training.advance(batch)
        launched = time.perf_counter()
        self.wait()
        end = time.perf_counter()
        passed = {
            "data, host": drawn - start,
            "data": made - start,
            "step, host": launched - made,
            "step": end - made,
        }
        return {name: seconds / steps for name, seconds in passed.items()}

    def in_a_run(self, rows: int) -> float:
        """Return the seconds of a step where its losses and pseudo-labels are recorded, median of *rows* of a run."""
        steps = fit(self.prepared.training, self.prepared.batches, self.prepared.data)
        trained = itertools.islice((row for row in steps if row["event"] == "train"), rows)
        return float(statistics.median(1 / row["steps_per_second"] for row in trained))


class TheirLoop(Loop):
    """The conventional step, with *workers* processes for each of its data loaders."""

    def __init__(self, case: Case, workers: int, tf32: bool) -> None:
        Way("float32", tf32=tf32).apply()
        self.side = Theirs(case, workers)
        self.device = self.side.device

    def step(self) -> Tensor:
        side = self.side
        batch = ImageBatch(
            *(part.to(self.device, non_blocking=True) for part in next(side.batches))
        )
        return torch.stack(list(side.pipeline.advance(batch).values())).sum()


def prepare_way(case: Case, way: Way, **train: Any) -> Prepared:
    """Build our training of a case in a way."""
    return case.prepare(way, case.source(), cuda_graph=way.graph, **train)


class Agreement:
    """The same training in two ways, from the same weights on the same batches."""

    def __init__(self, case: Case, way: Way, other_device: str, other: Way) -> None:
        other_case = dataclasses.replace(case, device=other_device)
        self.pairs = [(way, prepare_way(case, way)), (other, prepare_way(other_case, other))]

    def after(self, steps: int) -> Numbers:
        """Return how far the losses and the weights are apart after *steps*, relative to their size."""
        losses: list[list[Tensor]] = []
        for way, prepared in self.pairs:
            way.apply()
            training = prepared.training
            losses.append(
                [training.advance(prepared.batches(step))[1].clone() for step in range(steps)]
            )
        found = {
            "loss": max(
                float((a.cpu() - b.cpu()).abs() / b.cpu().abs().clamp(min=1e-6))
                for a, b in zip(*losses, strict=True)
            )
        }
        first, second = (
            dict(prepared.training.network.named_parameters()) for _, prepared in self.pairs
        )
        names = {"weights": (first, second)}
        averages = [
            dict(prepared.training.average.network.named_parameters()) for _, prepared in self.pairs
        ]
        names["moving average"] = (averages[0], averages[1])
        for name, (ours, theirs) in names.items():
            a, b = (
                torch.cat([v.detach().cpu().flatten() for v in side.values()])
                for side in (ours, theirs)
            )
            found[name] = float((a - b).norm() / b.norm())
        return found


class AllLimits(Limits):
    """What the machine can do at best, with tf32 too."""

    def rates(self) -> Numbers:
        Way("float32").apply()
        found = super().rates()
        Way("float32", tf32=True).apply()
        return found | {"tf32": super().rates()["float32"]}
