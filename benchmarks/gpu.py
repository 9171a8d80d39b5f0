"""Measure everything that needs a GPU, in at most eight minutes.

    python benchmarks/gpu.py --data /datasets --results results/gpu.csv
    python benchmarks/gpu.py --device cpu --quick          tests the program without a GPU

In this order:

1. agreement: 20 steps on the GPU against the CPU, and recorded, compiled, TF32 and bfloat16 steps
   against plain ones;
2. the time of a step, eager, recorded and compiled, as a share of the fastest matrix product, with
   the host's waits;
3. the kernels of a recorded step: how long the device computes, and with what;
4. several seeds side by side on one device: steps per second in total;
5. a cell of the paper's Table 1 until the time is up. It is saved then, and the next call resumes
   it.

A section is skipped, and named, if its time is not left. Results are written after each section. A
comparison with the conventional pipeline: ``python benchmarks/speed.py --device cuda``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
import tyro
from common import spread_of
from gpu_trainings import Gpu, Numbers, measure_seeds, train_cell
from steps import Case, Setting, Variant, measure_limits
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from daso.report.results import append_row
from daso.train.folder.environment import describe_environment
from daso.train.prepare import Prepared

PLAIN, TF32, BFLOAT16 = Variant("float32"), Variant("float32", tf32=True), Variant("bfloat16")
RECORDED = dataclasses.replace(BFLOAT16, cuda_graph=True)
COMPILED = dataclasses.replace(BFLOAT16, compile=True)
BOTH = dataclasses.replace(COMPILED, cuda_graph=True)
AGREEMENT_STEPS = 20
TOLERANCE = {"loss": 3e-3, "weights": 2e-2, "moving average": 8e-3}
"""For float32: ten times the effect of another rounding on 20 steps (a CPU with and without
oneDNN's kernels)."""
WARM_UP_STEPS, PROFILED_STEPS, KERNELS = 10, 16, 12


@dataclass
class Report:
    """The numbers so far, and the time that is left."""

    out: Path
    until: float
    numbers: Numbers = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def section(self, name: str, minutes: float, measure: Callable[[Numbers], None]) -> None:
        """Measure if *minutes* are left, and write all numbers; a failure stops no others."""
        if self.until - time.monotonic() < 60 * minutes:
            print(f"\n{name}: skipped, it may take {minutes:g} minutes")
            self.numbers.setdefault("skipped", []).append(name)
            return
        print(f"\n{name}", flush=True)
        numbers = self.numbers[name] = Numbers()
        try:
            measure(numbers)
        except RuntimeError as error:
            numbers["failed"] = str(error)
            self.wrong.append(f"{name}: {error}")
            print(f"failed: {error}")
        self.out.write_text(json.dumps(self.numbers, indent=1), encoding="utf-8")


class Loop:
    """Our step, batches included, as in a run; its time is taken when the device is done."""

    def __init__(self, case: Case, variant: Variant) -> None:
        self.variant = variant
        self.prepared = case.prepare(variant, case.source())

    def step(self) -> Tensor:
        training = self.prepared.training
        return training.advance(self.prepared.batches(training.step))[1]

    def seconds(self, steps: int) -> float:
        self.variant.set_tf32()
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        wait()
        return (time.perf_counter() - start) / steps

    def waits(self, steps: int) -> float | None:
        """Return how often the host waits for the device in a step, as far as torch detects it."""
        if not torch.cuda.is_available():
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

    def flops(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.step()
        return int(counter.get_total_flops())

    def kernels(self) -> Numbers:
        """Return the milliseconds of a step, of the device's work, and of the longest kernels."""
        cuda = torch.cuda.is_available()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities[: 1 + cuda]) as profile:
            seconds = self.seconds(PROFILED_STEPS)
        spent = {
            event.key: (event.self_device_time_total if cuda else event.self_cpu_time_total)
            / (1000 * PROFILED_STEPS)
            for event in profile.key_averages()
            if not event.is_user_annotation and (not cuda or event.device_type == DeviceType.CUDA)
        }
        longest = sorted(spent.items(), key=lambda item: -item[1])[:KERNELS]
        return {"step": 1000 * seconds, "busy": sum(spent.values()), "longest": dict(longest)}


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(case: Case, variant: Variant, other_device: str) -> Numbers:
    """Return how far 20 steps are from plain ones, relative to losses and weights."""
    sides: list[tuple[Prepared, list[float]]] = []
    plain = dataclasses.replace(case, device=other_device)
    for place, chosen in ((case, variant), (plain, PLAIN)):
        loop = Loop(place, chosen)
        chosen.set_tf32()
        losses = [loop.step().clone() for _ in range(AGREEMENT_STEPS)]
        sides.append((loop.prepared, [float(loss.detach().cpu()) for loss in losses]))
    (ours, our_losses), (theirs, their_losses) = sides
    pairs = zip(our_losses, their_losses, strict=True)
    apart = {"loss": max(abs(a - b) / max(abs(b), 1e-6) for a, b in pairs)}
    networks = {"weights": [s.training.network for s in (ours, theirs)]}
    networks["moving average"] = [s.training.average.network for s in (ours, theirs)]
    for name, pair in networks.items():
        a, b = (torch.cat([p.detach().cpu().flatten() for p in n.parameters()]) for n in pair)
        apart[name] = float((a - b).norm() / b.norm())
    return apart


def measure_agreement(gpu: Gpu, wrong: list[str], numbers: Numbers) -> None:
    """Compare variants with plain steps; append unexplained differences to *wrong*."""
    setting = Setting("small-4", 4, 3, 8) if gpu.quick else Setting("wrn-10-1", 16, 3, 32)
    case = Case(setting, "fixmatch+daso", 10, gpu.device)
    pairs = {"this device, the CPU": (PLAIN, "cpu")}
    recorded = dataclasses.replace(PLAIN, cuda_graph=True)
    if gpu.device.startswith("cuda"):
        pairs["recorded, eager"] = (recorded, gpu.device)
    if not gpu.quick:
        pairs["compiled, eager"] = (dataclasses.replace(PLAIN, compile=True), gpu.device)
        pairs["tf32, float32"] = (TF32, gpu.device)
    pairs["bfloat16, float32"] = (BFLOAT16, gpu.device)
    heading = "largest relative difference after 20 steps"
    print(f"{heading:44} {'loss':>12} {'weights':>12} {'average':>12}")
    for name, (variant, other) in pairs.items():
        try:
            apart = numbers[name] = compare(case, variant, other)
        except RuntimeError as error:
            numbers[name] = {"failed": str(error)}
            wrong.append(f"{name}: {error}")
            print(f"{name:44} failed: {error}")
            continue
        exact = variant.precision == "float32" and not variant.tf32
        if exact and not all(apart[key] <= limit for key, limit in TOLERANCE.items()):
            wrong.append(f"{name}: the numbers differ, tolerances {TOLERANCE}")
        print(f"{name:44}" + "".join(f" {value:12.2e}" for value in apart.values()))


def measure_steps(
    gpu: Gpu, case: Case, variants: Sequence[Variant], limits: Numbers, numbers: Numbers
) -> None:
    """Print and record the time of a step by variant; the variants take turns."""
    flops = None
    loops: dict[str, Loop] = {}
    for variant in variants:
        try:
            loop = Loop(case, variant)
            if flops is None and not (variant.compile or variant.cuda_graph):
                flops = loop.flops()
            loop.seconds(2 if gpu.quick else WARM_UP_STEPS)  # compiles, records
            loops[str(variant)] = loop
        except RuntimeError as error:
            numbers[str(variant)] = {"failed": str(error)}
    times: dict[str, list[float]] = {label: [] for label in loops}
    for _ in range(gpu.rounds):
        for label, loop in loops.items():
            once = loop.seconds(2)
            steps = 1 if gpu.quick else int(min(200, max(2, 0.5 / once)))
            times[label].append(loop.seconds(steps))
    for label, loop in loops.items():
        seconds = statistics.median(times[label])
        limit = limits.get(loop.variant.columns()["precision"])
        share = None if flops is None or not limit else flops / seconds / 1e9 / limit
        numbers[label] = {"seconds": times[label], "share_of_limit": share}
        numbers[label]["waits"] = loop.waits(2 if gpu.quick else WARM_UP_STEPS)
        if gpu.results is not None:
            append_row(gpu.results, result_row(case, loop.variant, numbers[label]))
    if torch.cuda.is_available():
        numbers["megabytes"] = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
    print(f"{'':48} {'ms':>9} {'steps/s':>9} {'of limit':>9} {'waits':>6}")
    for label, side in numbers.items():
        if label == "megabytes":
            print(f"{side:,.0f} MB of device memory for all")
        elif "failed" in side:
            print(f"{label:48} failed: {side['failed']}")
        else:
            seconds, share = statistics.median(side["seconds"]), side["share_of_limit"]
            shown = "-" if share is None else f"{share:.0%}"
            waits = "-" if side["waits"] is None else f"{side['waits']:.1f}"
            print(f"{label:48} {1000 * seconds:9.2f} {1 / seconds:9.1f} {shown:>9} {waits:>6}")


def result_row(case: Case, variant: Variant, numbers: Numbers) -> Numbers:
    environment = describe_environment(torch.device(case.device))
    spread = spread_of([1000 * seconds for seconds in numbers["seconds"]])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **{name: environment[name] for name in ("commit", "hardware", "torch", "command")},
        "network": case.setting.network,
        "pixels": case.setting.side,
        "batch": case.setting.batch,
        "method": case.method,
        "num_classes": case.num_classes,
        **variant.columns(),
        "rounds": len(numbers["seconds"]),
        **{f"milliseconds_{name}": round(value, 4) for name, value in spread.items()},
        "share_of_limit": numbers["share_of_limit"],
        "waits_per_step": numbers["waits"],
    }


def measure_kernels(gpu: Gpu, case: Case, numbers: Numbers) -> None:
    variant = RECORDED if gpu.device.startswith("cuda") else BFLOAT16
    loop = Loop(case, variant)
    loop.seconds(WARM_UP_STEPS)
    numbers |= loop.kernels()
    step, busy = numbers["step"], numbers["busy"]
    print(f"{variant}: {step:.2f} ms a step, the device computes for {busy:.2f} ms")
    for name, milliseconds in numbers["longest"].items():
        print(f"{milliseconds:10.3f} ms  {name:.100}")


def main(gpu: Gpu) -> None:
    if not gpu.device.startswith("cuda") and not gpu.quick:
        raise SystemExit(f"--device {gpu.device} needs --quick; benchmarks/speed.py measures a CPU")
    if gpu.device.startswith("cuda") and not device_exists():
        raise SystemExit(
            f"no CUDA device (torch {torch.__version__}); test the program with --device cpu "
            "--quick"
        )
    gpu.out.mkdir(parents=True, exist_ok=True)
    until = math.inf if gpu.quick else time.monotonic() + 60 * gpu.minutes
    report = Report(gpu.out / "gpu.json", until)
    environment = report.numbers["environment"] = describe_environment(torch.device(gpu.device))
    print(f"torch {torch.__version__}, {environment['hardware']}, commit {environment['commit']}")
    report.section("agreement", 1.0, partial(measure_agreement, gpu, report.wrong))
    limits: Numbers = {}

    def measure_best(found: Numbers) -> None:
        limits.update(measure_limits(gpu.device, "wall", 256 if gpu.quick else 8192))
        found |= limits
        print(", ".join(f"{k} {v:,.0f}" for k, v in limits.items()) + " (GFLOP/s; copy GB/s)")

    report.section("limits", 0.3, measure_best)
    cifar, imagenet = Setting("wrn-28-2", 64, 3, 32), Setting("resnet50", 32, 3, 224)
    cases: list[tuple[Setting, str, int, tuple[Variant, ...], float]] = [
        (cifar, "fixmatch+daso", 10, (PLAIN, TF32, BFLOAT16, RECORDED, COMPILED, BOTH), 2.0),
        (cifar, "fixmatch", 10, (BFLOAT16, RECORDED), 0.6),
        (cifar, "fixmatch+daso", 1000, (BFLOAT16, RECORDED), 0.6),
        (imagenet, "fixmatch+daso", 10, (BFLOAT16, RECORDED), 0.8),
    ]
    if gpu.quick:
        tiny = Setting("small-4", 4, 3, 8)
        recorded = (RECORDED,) if gpu.device.startswith("cuda") else ()
        cases = [(tiny, "fixmatch+daso", 10, (PLAIN, BFLOAT16, *recorded), 0)]
    for setting, method, classes, variants, minutes in cases:
        case = Case(setting, method, classes, gpu.device)
        size = f"{setting.batch} + {2 * setting.batch} of {setting.side} x {setting.side}"
        name = f"{setting.network}, {method}, K = {classes}, {size}"
        report.section(name, minutes, partial(measure_steps, gpu, case, variants, limits))
    first = Case(cases[0][0], "fixmatch+daso", 10, gpu.device)
    report.section("kernels", 0.4, partial(measure_kernels, gpu, first))
    report.section("seeds side by side", 1.0, partial(measure_seeds, gpu, first))
    report.section("cell of Table 1", 0.5, partial(train_cell, gpu, until))
    if report.wrong:
        raise SystemExit("\n".join(["", "not as it should be:", *report.wrong]))


def device_exists() -> bool:
    return torch.cuda.is_available()


if __name__ == "__main__":
    main(tyro.cli(Gpu))
