"""Compare the speed of our training step on a CPU with the conventional pipeline.

    python benchmarks/speed.py --settings wrn-28-2-64 --rounds 5 --csv results/speed.csv

Each side runs in a process of its own. The rounds of the sides alternate, so that all meet the same
state of the machine: the ratio of a round is taken within it, and the table shows the median ratio
with the lowest and the highest. The images are noise, which takes as long as any others. "Joint
batch norm" is FixMatch's way: one forward pass over labeled, weak and strong images, as in the
conventional pipeline. That has the best of what its users can set: glibc keeps its freed memory, as
in ours, and of several numbers of data-loading processes the fastest is taken. With the "weak view
apart", the weak images pass the network by themselves,
without a gradient (``--weak-pass apart``). The section "views" compares the strong view of
photographs with Pillow's, one image after another.

The share of the limit refers to the fastest arithmetic found in the same precision: a matrix
product, or on a CPU a wide convolution. On a busy machine, ``--clock processor`` measures the
processor time of all threads and data loaders: its ratios are steady, but the time that a thread
waits for another does not count.
"""

from __future__ import annotations

import inspect
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from common import Spread, provenance, ratio, show, spread_of
from steps import Case, Ours, Setting, Theirs, Variant, measure_limits
from strong_views import measure_views
from surroundings import Overhead, OwnWork, peak_of, peak_of_training, write_noise
from timing import Clock, Remote

from daso.methods.fixmatch import FixMatch
from daso.report.results import append_row
from daso.train.step.state import choose_device

SETTINGS = {
    "wrn-28-2-64": Setting("wrn-28-2", 64, 3, 32),
    "wrn-28-2-16": Setting("wrn-28-2", 16, 3, 32),
    "small-28": Setting("small", 32, 1, 28),
    "resnet50-224": Setting("resnet50", 32, 3, 224, needs_cuda=True),
    "tiny": Setting("small-4", 4, 1, 8),
}
VARIANTS = {
    "float32": Variant("float32"),
    "float32-recomputed": Variant("float32", recompute=True),
    "float32-compiled": Variant("float32", compile=True),
    "bfloat16": Variant("bfloat16"),
    "bfloat16-recomputed": Variant("bfloat16", recompute=True),
    "bfloat16-compiled": Variant("bfloat16", compile=True),
    "float32-apart": Variant("float32", "apart"),
    "bfloat16-apart": Variant("bfloat16", "apart"),
    "bfloat16-apart-compiled": Variant("bfloat16", "apart", compile=True),
}
CONVENTIONAL = "conventional: float32, joint batch norm, eager"
STEP = "step, times conventional"
PARTS = ("data", "forward", "EMA features", "backward", "optimizer", "moving average", "other")
RUN_STEPS, PERIOD, TEST_IMAGES = 250_000, 500, 10_000

Section = Literal["steps", "own-work", "overhead", "memory", "views"]


@dataclass(frozen=True)
class Speed:
    """Measure training steps, their parts, and the costs of a run around them."""

    settings: tuple[str, ...] = ("wrn-28-2-64",)
    """wrn-28-2-64 (the paper's), wrn-28-2-16, small-28, resnet50-224 (CUDA only), tiny."""
    methods: tuple[str, ...] = ("fixmatch", "fixmatch+daso")
    """Methods to measure."""
    classes: tuple[int, ...] = (10,)
    """K of whole steps; DASO's own work is always measured for 10, 100 and 1000."""
    variants: tuple[str, ...] = (
        *("float32", "float32-compiled", "bfloat16", "bfloat16-compiled", "bfloat16-apart"),
    )
    """float32 or bfloat16, optionally followed by -apart, -recomputed or -compiled."""
    sections: tuple[Section, ...] = ("steps", "own-work", "overhead", "memory")
    """What to measure."""
    rounds: int = 5
    """Rounds, in each of which every side has its turn."""
    steps: int = 2
    """Steps of a turn."""
    threads: int = torch.get_num_threads()
    """Threads of torch."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Data-loading processes of each loader that the conventional pipeline tries first."""
    clock: Clock = "wall"
    """wall, or processor: the time of all threads and data loaders, for a busy machine (Linux)."""
    device: str = "auto"
    """cpu, cuda; auto takes the first accelerator."""
    quick: bool = False
    """Measure everything once on tiny sizes, to test that it works."""
    json: Path | None = None
    """File for all numbers."""
    csv: Path | None = None
    """File to append a row to for every ratio."""


QUICK: dict[str, Any] = {
    "settings": ("tiny",),
    "methods": ("fixmatch+daso",),
    "variants": ("float32", "bfloat16-apart"),
    "sections": ("steps", "own-work", "overhead", "memory", "views"),
    "rounds": 2,
    "steps": 2,
    "threads": 1,
    "device": "cpu",
}


def available(variant: Variant) -> bool:
    return variant.weak_pass == "joint" or "weak_pass" in inspect.signature(FixMatch).parameters


def fastest_conventional(speed: Speed, case: Case) -> tuple[int, Remote]:
    """Start the conventional side with each number of workers, and keep the fastest one."""
    sides = {workers: Remote(speed.threads, Theirs, case, workers) for workers in speed.workers}
    seconds: dict[int, list[float]] = {workers: [] for workers in sides}
    for _ in range(3):
        for workers, side in sides.items():
            seconds[workers].append(side.call("round", speed.steps)["step"])
    best = min(sides, key=lambda workers: statistics.median(seconds[workers][1:]))
    for workers, side in sides.items():
        if workers != best:
            side.close()
    return best, sides[best]


def measure_steps(speed: Speed, case: Case, limits: dict[str, float]) -> dict[str, Any]:
    """Return seconds, ratios, parts and shares of the limit by variant; the sides take turns."""
    workers, conventional = fastest_conventional(speed, case)
    sides = {CONVENTIONAL: conventional}
    missing: dict[str, str] = {}
    chosen = {str(VARIANTS[name]): VARIANTS[name] for name in speed.variants}
    for label, variant in chosen.items():
        if not available(variant):
            missing[label] = "not available"
            continue
        try:
            sides[label] = Remote(speed.threads, Ours, case, variant)
            sides[label].call("round", 2)  # compiles, fills caches
        except RuntimeError as error:
            missing[label] = f"failed: {error}"
            sides.pop(label, None)
    flops = {"joint": sides[CONVENTIONAL].call("flops")}
    for label, variant in chosen.items():
        if label in sides and not variant.compile and variant.weak_pass not in flops:
            flops[variant.weak_pass] = sides[label].call("flops")
    sides[CONVENTIONAL].call("round", 2)

    rounds: dict[str, list[dict[str, float]]] = {label: [] for label in sides}
    for number in range(speed.rounds):
        labels = list(sides)
        # Another side starts each round: the one after the data loaders shares the machine with
        # them.
        shift = number % len(labels)
        for label in labels[shift:] + labels[:shift]:
            rounds[label].append(sides[label].call("round", speed.steps))
    for side in sides.values():
        side.close()

    result: dict[str, Any] = {}
    base = [parts["step"] for parts in rounds[CONVENTIONAL]]
    for label, measured in rounds.items():
        seconds = [parts["step"] for parts in measured]
        variant = chosen.get(label, Variant())
        operations = flops.get(variant.weak_pass, 0)
        names = [name for name in PARTS if name in measured[0]]
        result[label] = {
            "seconds": seconds,
            "times_conventional": ratio(base, seconds),
            "parts": {name: statistics.median(parts[name] for parts in measured) for name in names},
            "gflops": operations / statistics.median(seconds) / 1e9 or None,
            "shares_of_limit": [
                operations / one / 1e9 / limits[variant.precision] for one in seconds
            ],
        }
    setting = case.setting
    size = f"{setting.channels} x {setting.side} x {setting.side}"
    print(
        f"\nconventional: {workers} worker(s) for each loader, the fastest of {speed.workers}"
        f"\n{setting.network}, {case.method}, K = {case.num_classes}, "
        f"{setting.batch} + {2 * setting.batch} images of {size}, {flops['joint'] / 1e9:,.1f} "
        "GFLOP a step"
    )
    print(f"{'':48} {'s':>8} {'steps/s':>8}   {'times conventional':19} {'GFLOP/s':>8} of limit")
    for label, numbers in result.items():
        second = statistics.median(numbers["seconds"])
        rate_text, share = (
            f"{numbers['gflops'] or 0:,.1f}",
            f"{statistics.median(numbers['shares_of_limit']):.0%}",
        )
        times = show(numbers["times_conventional"])
        print(f"{label:48} {second:8.4f} {1 / second:8.2f}   {times:19} {rate_text:>8} {share}")
    for label, reason in missing.items():
        print(f"{label:48} {reason}")
    print(
        f"{'ms of a step (EMA features are part of forward)':48}"
        + "".join(f"{name:>15}" for name in PARTS)
    )
    for label, numbers in result.items():
        cells = "".join(f"{1000 * numbers['parts'].get(name, 0):15.1f}" for name in PARTS)
        print(f"{label:48}{cells}")
    return {"flops": flops, "workers": workers, "variants": result, "missing": missing}


def measure_own_work(speed: Speed, device: str, step: float | None) -> dict[str, Any]:
    """Return what DASO adds to FixMatch beyond the EMA features, for K = 10, 100 and 1000."""
    # The small network of width 32 has 128 features, as many as WRN-28-2.
    setting = SETTINGS["tiny"] if speed.quick else Setting("small-32", 64, 1, 8)
    images = f"{setting.batch} + {2 * setting.batch} images"
    print(f"\nDASO on {images} beyond FixMatch and the EMA features, ms")
    print(
        f"{'K':>5} {'conventional':>13} {'ours':>8}   times conventional    share of fastest step"
    )
    result: dict[str, Any] = {}
    for classes in (10,) if speed.quick else (10, 100, 1000):
        case = Case(setting, "fixmatch+daso", classes, device, speed.clock)
        remote = Remote(speed.threads, OwnWork, case)
        rounds = [
            remote.call("milliseconds", 5 if speed.quick else 15) for _ in range(speed.rounds)
        ]
        remote.close()
        sides = {side: [numbers[side] for numbers in rounds] for side in ("conventional", "ours")}
        conventional, ours = (statistics.median(values) for values in sides.values())
        share = None if step is None else ours / 1000 / step
        times = ratio(sides["conventional"], sides["ours"])
        numbers = {"milliseconds": sides, "times_conventional": times, "share_of_step": share}
        result[str(classes)] = numbers
        shown = "" if share is None else f"{share:10.1%}"
        print(f"{classes:5} {conventional:13.2f} {ours:8.2f}   {show(times):19} {shown}")
    return result


def measure_overhead(speed: Speed, case: Case, steps: dict[str, float]) -> dict[str, Any]:
    """Return the seconds of evaluation, checkpoint and logging, and their share of a run."""
    print(f"\nAround the steps, every {PERIOD} of {RUN_STEPS}, with {TEST_IMAGES:,} test images, s")
    # Whole batches of an evaluation, so that its time is proportional to the number of images.
    period, test = (20, 32) if speed.quick else (PERIOD, 512)
    seconds: dict[str, dict[str, float]] = {}
    shares: dict[str, float] = {}
    for variant in (VARIANTS[name] for name in speed.variants):
        precision, label = variant.precision, str(variant)
        if precision not in seconds:
            remote = Remote(speed.threads, Overhead, case, Variant(precision))
            seconds[precision] = remote.call("seconds", period, test, TEST_IMAGES)
            remote.close()
            cells = "".join(f"{name} {value:9.3f}  " for name, value in seconds[precision].items())
            print(f"{precision:12}{cells}")
        if label in steps:
            total = sum(seconds[precision].values())
            shares[label] = total / (PERIOD * steps[label] + total)
            print(f"{label:48} {shares[label]:8.2%} of a run")
    return {"seconds": seconds, "share_of_run": shares}


def measure_memory(speed: Speed, device: str) -> dict[str, Any]:
    alone = peak_of("import torch", threads=speed.threads)
    print(f"\nPeak host memory of 'daso train cifar10' above torch's own import ({alone:.0f}), MB")
    result: dict[str, Any] = {"torch": alone}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_noise(folder, quick=speed.quick)
        for name in speed.variants[:1] if speed.quick else speed.variants:
            variant = VARIANTS[name]
            if available(variant):
                how: dict[str, Any] = {"quick": speed.quick, "threads": speed.threads}
                peak = peak_of_training(folder, variant, name, device=device, **how) - alone
                result[str(variant)] = {"training": peak}
                print(f"{variant!s:48} {peak:8.0f}")
    return result


def row(
    measured: str, spread: Spread, *, rounds: int, clock: str, threads: int, **columns: Any
) -> dict[str, Any]:
    names = ("setting", "method", "classes", "precision", "batch_norm", "way")
    return {
        "measured": measured,
        **{name: columns.get(name, "") for name in names},
        **{name: f"{spread[name]:.4g}" for name in ("median", "low", "high")},
        "rounds": rounds,
        "clock": clock,
        **provenance(threads),
    }


def measured_rows(
    result: dict[str, Any], step: float | None
) -> Iterator[tuple[str, Spread, dict[str, Any]]]:
    """Yield what was measured, its spread, and the columns that name it."""

    def columns(label: str) -> dict[str, str]:
        parts = label.split(", ")
        return dict(zip(("precision", "batch_norm", "way"), parts, strict=True))

    daso = {"method": "fixmatch+daso"}
    for setting, cases in result.get("settings", {}).items():
        for case, numbers in cases.items():
            method, _, classes = case.partition(", K = ")
            about = {"setting": setting, "method": method, "classes": classes}
            for label, side in numbers["variants"].items():
                if label != CONVENTIONAL:
                    spread = side["times_conventional"]
                    measured = f"{STEP}, memory kept, {numbers['workers']} worker(s)"
                    yield measured, spread, {**about, **columns(label)}
                    shares = spread_of(side["shares_of_limit"])
                    yield "step, share of the limit", shares, {**about, **columns(label)}
    for classes, numbers in result.get("own_work", {}).items():
        about = {**daso, "classes": classes}
        yield "DASO's own work, times conventional", numbers["times_conventional"], about
        if step is not None:
            steps = [ours / 1000 / step for ours in numbers["milliseconds"]["ours"]]
            yield "DASO's own work, share of our fastest step", spread_of(steps), about
    for label, share in result.get("overhead", {}).get("share_of_run", {}).items():
        measured = "evaluation, checkpoints, logging, share of a run"
        yield measured, spread_of([share]), {**daso, **columns(label)}
    for label, peaks in result.get("memory", {}).items():
        if label != "torch":
            measured = "peak host memory of a training above torch's import, MB"
            yield measured, spread_of([peaks["training"]]), {**daso, **columns(label)}
    for label, spread in result.get("views", {}).items():
        yield "strong view, times Pillow", spread, {"setting": label}


def median_steps(settings: dict[str, Any]) -> dict[str, float]:
    for cases in settings.values():
        for name, case in cases.items():
            if "daso" in name:
                sides = {n: side for n, side in case["variants"].items() if n != CONVENTIONAL}
                return {n: statistics.median(side["seconds"]) for n, side in sides.items()}
    return {}


def main(speed: Speed) -> None:
    if speed.quick:
        speed = replace(speed, **QUICK)
    if speed.clock == "processor":
        os.environ["OMP_WAIT_POLICY"] = "passive"  # a spinning thread would count as busy
    device = str(choose_device(speed.device))
    on_cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name() if on_cuda else "CPU"
    print(
        f"torch {torch.__version__}, {name}, {speed.threads} thread(s), "
        f"{speed.rounds} rounds of {speed.steps} steps"
    )
    torch.set_num_threads(speed.threads)
    size = 256 if speed.quick else 8192 if on_cuda else 2048
    limits = measure_limits(device, speed.clock, size)
    print("limits, GFLOP/s and GB/s: " + ", ".join(f"{k} {v:,.1f}" for k, v in limits.items()))
    machine = {"torch": torch.__version__, "device": name, "threads": speed.threads}
    result: dict[str, Any] = {"machine": machine, "limits": limits, "settings": {}}
    for chosen in speed.settings if "steps" in speed.sections else ():
        setting = SETTINGS[chosen]
        if setting.needs_cuda and not on_cuda:
            print(f"\n{chosen}: needs a CUDA device")
            continue
        result["settings"][chosen] = {
            f"{method}, K = {classes}": measure_steps(
                speed, Case(setting, method, classes, device, speed.clock), limits
            )
            for method in speed.methods
            for classes in speed.classes
        }
    steps = median_steps(result["settings"])
    fastest = min(steps.values(), default=None)
    case = Case(SETTINGS[speed.settings[0]], "fixmatch+daso", 10, device, speed.clock)
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "settings": lambda: result["settings"],
        "own-work": lambda: measure_own_work(speed, device, fastest),
        "overhead": lambda: measure_overhead(speed, case, steps),
        "memory": lambda: measure_memory(speed, device),
        "views": lambda: measure_views(speed.threads, speed.clock, speed.rounds, speed.quick),
    }
    for section, measure in sections.items():
        if section != "settings" and section not in speed.sections:
            continue
        key = section.replace("-", "_")
        result[key] = measure()
        if speed.csv is not None:
            for measured, spread, columns in measured_rows({key: result[key]}, fastest):
                once = measured.startswith(("evaluation", "peak"))
                about: dict[str, Any] = {"clock": speed.clock, "threads": speed.threads, **columns}
                rounds = 1 if once else speed.rounds
                append_row(speed.csv, row(measured, spread, rounds=rounds, **about))
    if speed.json is not None:
        speed.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Speed))
