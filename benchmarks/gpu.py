"""Measure the training step on a GPU: is it right, how fast is it, and what keeps it from being faster.

    python benchmarks/gpu.py --results results/gpu.csv --json gpu.json
    python benchmarks/gpu.py --device cpu --smoke        tries the program out where there is no GPU

First it compares 20 steps with those on the CPU and those of the faster ways with the plain one. Then every way takes
turns with the conventional pipeline of benchmarks/conventional.py, each in a process of its own, data and augmentation
included: the ratio of a round is taken within that round, and the tables give the median with the lowest and the
highest. What the minutes do not suffice for is left out and named; what is measured is written as it comes.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from cases import Case, Setting
from gpu_cases import Rounds
from gpu_sides import Agreement, AllLimits, Numbers, OurLoop, Way
from remote import Remote
from surroundings import OwnWork

from daso.train.folder.environment import describe_environment

CIFAR, IMAGENET = Setting("wrn-28-2", 64, 3, 32), Setting("resnet50", 32, 3, 224)
TINY = Setting("small-4", 4, 3, 8)
PLAIN, TF32, BFLOAT16 = Way("float32"), Way("float32", tf32=True), Way("bfloat16")
RECORDED = dataclasses.replace(BFLOAT16, graph=True)
COMPILED = dataclasses.replace(BFLOAT16, compile=True)
FASTEST = dataclasses.replace(COMPILED, graph=True)
WAYS = (
    *(PLAIN, TF32, BFLOAT16, RECORDED, COMPILED, FASTEST),
    dataclasses.replace(FASTEST, weak_pass="apart"),
    dataclasses.replace(FASTEST, search=True),
)
AGREEMENT_STEPS = 20
TOLERANCE = {"loss": 3e-3, "weights": 2e-2, "moving average": 8e-3}
"""Of float32: ten times what 20 steps make of another rounding (on a CPU with and without oneDNN's kernels)."""


@dataclass(frozen=True)
class Gpu:
    """Measure the training step on a GPU."""

    device: str = "cuda"
    """cuda, cuda:1; cpu with --smoke."""
    smoke: bool = False
    """Everything once on tiny sizes, to see that it works."""
    minutes: float = 8.5
    """Sections begin only as long as these last."""
    rounds: int = 5
    """Rounds, in each of which every side has its turn."""
    workers: int = 8
    """Data-loading processes of each of the conventional pipeline's two loaders."""
    json: Path | None = None
    """Write every number here."""
    results: Path | None = None
    """Append a row for every side of every case here."""


@dataclass
class Report:
    """What has been found so far, and until when there is time.

    Attributes:
        until: time of the monotonic clock.
        found: numbers by section.
        wrong: what is not as it should be.
    """

    gpu: Gpu
    until: float
    found: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def section(self, name: str, minutes: float, measure: Callable[[dict[str, Any]], None]) -> None:
        """Measure something if its *minutes* are left; write all there is then. One that fails leaves the others."""
        if not self.gpu.smoke and time.monotonic() + 60 * minutes > self.until:
            print(f"\n{name}: left out, it may take {minutes:g} minutes, which are not left")
            self.found.setdefault("left_out", []).append(name)
            return
        print(f"\n{name}", flush=True)
        found = self.found[name] = dict[str, Any]()
        try:
            measure(found)
        except RuntimeError as error:
            found["failed"] = str(error)
            self.wrong.append(f"{name}: {error}")
            print(f"failed: {error}")
        if self.gpu.json is not None:
            self.gpu.json.write_text(json.dumps(self.found, indent=1), encoding="utf-8")


def measure_limits(gpu: Gpu, limits: Numbers, found: dict[str, Any]) -> None:
    """Show what the device can do at best; it stands in *limits*, too."""
    remote = Remote(1, AllLimits, gpu.device, "wall", 256 if gpu.smoke else 8192)
    limits |= remote.call("rates")
    remote.close()
    found |= limits
    print(
        ", ".join(f"{key} {value:,.0f}" for key, value in limits.items()) + " (GFLOP/s; copy GB/s)"
    )


def compare_numbers(gpu: Gpu, wrong: list[str], found: dict[str, Any]) -> None:
    """Show how far 20 steps in one way are from those in another; *wrong* is told where rounding is no reason."""
    setting = TINY if gpu.smoke else Setting("wrn-10-1", 16, 3, 32)
    case = Case(setting, "fixmatch+daso", 10, gpu.device, "wall")
    recorded, compiled = Way("float32", graph=True), Way("float32", compile=True)
    pairs: dict[str, tuple[Way, str, Way]] = {"this device, the CPU": (PLAIN, "cpu", PLAIN)}
    if not gpu.smoke:
        pairs |= {
            "recorded, eager": (recorded, gpu.device, PLAIN),
            "compiled, eager": (compiled, gpu.device, PLAIN),
            "tf32, float32": (TF32, gpu.device, PLAIN),
        }
    pairs["bfloat16, float32"] = (BFLOAT16, gpu.device, PLAIN)
    print(
        f"{'largest relative difference after 20 steps':48} {'loss':>12} {'weights':>12} {'average':>12}"
    )
    for name, (way, device, other) in pairs.items():
        try:
            remote = Remote(1, Agreement, case, way, device, other)
            apart: Numbers = remote.call("after", AGREEMENT_STEPS)
            remote.close()
        except RuntimeError as error:
            found[name] = {"failed": str(error)}
            wrong.append(f"{name}: {error}")
            print(f"{name:48} failed: {error}")
            continue
        exact = way.precision == "float32" and not way.tf32
        if exact and not all(apart[number] <= limit for number, limit in TOLERANCE.items()):
            wrong.append(f"{name}: not the same numbers, tolerances {TOLERANCE}")
        found[name] = apart
        print(f"{name:48}" + "".join(f" {value:12.2e}" for value in apart.values()))


def measure_kernels(gpu: Gpu, case: Case, way: Way, found: dict[str, Any]) -> None:
    """Show how long the device computes in a step, and with what."""
    remote = Remote(1, OurLoop, case, way)
    remote.call("seconds", 2 if gpu.smoke else 40)
    found |= remote.call("kernels")
    remote.close()
    print(f"{way}: {found['step']:.2f} ms a step, the device computes for {found['busy']:.2f} ms")
    for name, milliseconds in found["longest"].items():
        print(f"{milliseconds:10.3f} ms  {name:.100}")


def measure_together(gpu: Gpu, case: Case, way: Way, found: dict[str, Any]) -> None:
    """Show the steps per second of several trainings at once, in sum."""
    steps = 2 if gpu.smoke else 300
    for count in (1,) if gpu.smoke else (1, 2, 4):
        remotes = [Remote(1, OurLoop, case, way) for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda remote: remote.call("seconds", 20), remotes))
            seconds = list(pool.map(lambda remote: remote.call("seconds", steps), remotes))
        for remote in remotes:
            remote.close()
        found[str(count)] = sum(1 / value for value in seconds)
        print(f"{count} at once: {found[str(count)]:8.1f} steps/s in sum")


def measure_own_work(gpu: Gpu, found: dict[str, Any]) -> None:
    """Show what DASO adds to FixMatch beyond the EMA features."""
    setting = TINY if gpu.smoke else Setting("small-32", 64, 1, 8)
    print(f"{'K':>5} {'conventional':>13} {'ours':>8}  ms")
    for classes in (10,) if gpu.smoke else (10, 100, 1000):
        remote = Remote(1, OwnWork, Case(setting, "fixmatch+daso", classes, gpu.device, "wall"))
        found[str(classes)] = numbers = remote.call("milliseconds", 15)
        remote.close()
        print(f"{classes:5} {numbers['conventional']:13.2f} {numbers['ours']:8.2f}")


def main(gpu: Gpu) -> None:
    if gpu.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(
            f"there is no CUDA device here (torch {torch.__version__}); with --device cpu --smoke the program is "
            f"tried out without one"
        )
    if not gpu.device.startswith("cuda") and not gpu.smoke:
        raise SystemExit(
            f"--device {gpu.device} is for --smoke alone; benchmarks/speed.py measures the CPU"
        )
    report = Report(gpu, time.monotonic() + 60 * gpu.minutes)
    environment = report.found["environment"] = describe_environment(torch.device(gpu.device))
    print(f"torch {torch.__version__}, {environment['hardware']}, commit {environment['commit']}")
    if used := other_use(gpu.device):
        print(f"Warning: {used}; times may be of other work, too")
    limits: Numbers = {}
    report.section("limits", 0.5, partial(measure_limits, gpu, limits))
    report.section("agreement", 1.5, partial(compare_numbers, gpu, report.wrong))
    rounds = Rounds(
        gpu.rounds, *((0.01, 1) if gpu.smoke else (1.0, gpu.workers)), limits, gpu.results
    )
    cases: list[tuple[Setting, str, int, tuple[Way, ...], float]] = [
        (CIFAR, "fixmatch+daso", 10, WAYS, 2.5),
        (CIFAR, "fixmatch", 10, (BFLOAT16, RECORDED, FASTEST), 1.5),
        (CIFAR, "fixmatch+daso", 1000, (BFLOAT16, RECORDED), 0.8),
        (CIFAR, "fixmatch+daso", 100, (BFLOAT16, RECORDED), 0.8),
        (IMAGENET, "fixmatch+daso", 10, (BFLOAT16, RECORDED), 1.2),
    ]
    if gpu.smoke:
        cases = [(TINY, "fixmatch+daso", 10, (PLAIN, BFLOAT16), 0)]
    for setting, method, classes, ways, minutes in cases:
        size = f"{setting.batch} + {2 * setting.batch} of {setting.side} x {setting.side}"
        case = Case(setting, method, classes, gpu.device, "wall")
        title = f"{setting.network}, {method}, K = {classes}, {size}"
        report.section(title, minutes, partial(rounds.measure, case, ways))
    first = Case(cases[0][0], "fixmatch+daso", 10, gpu.device, "wall")
    best = PLAIN if gpu.smoke else RECORDED
    report.section("kernels", 0.5, partial(measure_kernels, gpu, first, best))
    report.section("together", 0.8, partial(measure_together, gpu, first, best))
    report.section("DASO beyond FixMatch and the EMA features", 0.8, partial(measure_own_work, gpu))
    if report.wrong:
        raise SystemExit("\n".join(["", "not as it should be:", *report.wrong]))


def other_use(device: str) -> str | None:
    """Return in words what else uses a CUDA device, where that can be told."""
    if not device.startswith("cuda"):
        return None
    free, total = torch.cuda.mem_get_info(torch.device(device))
    taken = (total - free) / 2**30
    return f"{taken:.1f} GiB of the device's memory are taken already" if taken > 2 else None


if __name__ == "__main__":
    main(tyro.cli(Gpu))
