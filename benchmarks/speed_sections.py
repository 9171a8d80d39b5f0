"""What benchmarks/speed.py measures, one function for each section; each prints its table and returns its numbers."""

from __future__ import annotations

import inspect
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cases import Case, Setting, Variant
from peak import peak_of, peak_of_training, write_noise
from remote import Remote
from sides import Ours, Theirs
from speed_options import CONVENTIONAL, VARIANTS, Speed
from surroundings import Overhead, OwnWork

from daso.methods.fixmatch import FixMatch

PARTS = ("data", "forward", "EMA features", "backward", "optimizer", "moving average", "other")
RUN_STEPS, PERIOD, TEST_IMAGES = 250_000, 500, 10_000


def ratio(numerators: list[float], denominators: list[float]) -> dict[str, float]:
    """Return the median, lowest and highest ratio of two series of the same rounds."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def show(ratios: dict[str, float]) -> str:
    return f"{ratios['median']:6.2f} ({ratios['low']:.2f}-{ratios['high']:.2f})"


def available(variant: Variant) -> bool:
    return variant.weak_pass == "joint" or "weak_pass" in inspect.signature(FixMatch).parameters


def measure_steps(speed: Speed, case: Case, limits: dict[str, float]) -> dict[str, Any]:
    """Let all sides take turns; return seconds, ratios, parts and shares of the limit by variant."""
    sides: dict[str, Remote] = {CONVENTIONAL: Remote(speed.threads, Theirs, case, speed.threads)}
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
        # Another one begins each round: whoever follows the loader's processes shares the machine with them.
        shift = number % len(labels)
        for label in labels[shift:] + labels[:shift]:
            rounds[label].append(sides[label].call("round", speed.steps))
    for side in sides.values():
        side.close()

    found: dict[str, Any] = {}
    base = [parts["step"] for parts in rounds[CONVENTIONAL]]
    for label, measured in rounds.items():
        seconds = [parts["step"] for parts in measured]
        variant = chosen.get(label, Variant("float32"))
        rate = flops.get(variant.weak_pass, 0) / statistics.median(seconds) / 1e9
        names = [name for name in PARTS if name in measured[0]]
        found[label] = {
            "seconds": seconds,
            "times_conventional": ratio(base, seconds),
            "parts": {name: statistics.median(parts[name] for parts in measured) for name in names},
            "gflops": rate or None,
            "share_of_limit": rate / limits[variant.precision] or None,
        }
    setting = case.setting
    images = f"{setting.batch} + {2 * setting.batch} images of {setting.channels} x {setting.side} x {setting.side}"
    work = ", ".join(f"{count / 1e9:.3g} GFLOP ({way})" for way, count in flops.items())
    print(f"\n{setting.network}, {case.method}, K = {case.num_classes}: {images}, a step is {work}")
    print(
        f"{'':48} {'s/step':>8} {'steps/s':>8}   times conventional  {'GFLOP/s':>8} {'of limit':>8}"
    )
    for label, numbers in found.items():
        second = statistics.median(numbers["seconds"])
        share = "" if numbers["gflops"] is None else f"{numbers['share_of_limit']:8.0%}"
        rate_text = "" if numbers["gflops"] is None else f"{numbers['gflops']:8.0f}"
        times = show(numbers["times_conventional"])
        print(f"{label:48} {second:8.4f} {1 / second:8.2f}   {times:19} {rate_text:>8} {share}")
    for label, reason in missing.items():
        print(f"{label:48} {reason}")
    print(
        f"{'ms of a step (EMA features are part of forward)':48}"
        + "".join(f"{name:>15}" for name in PARTS)
    )
    for label, numbers in found.items():
        print(
            f"{label:48}"
            + "".join(f"{1000 * numbers['parts'].get(name, 0):15.1f}" for name in PARTS)
        )
    return {"flops": flops, "variants": found, "missing": missing}


def measure_own_work(speed: Speed, device: str, step: float | None) -> dict[str, Any]:
    """Return what DASO adds to FixMatch beyond the EMA features, for K = 10, 100 and 1000."""
    # The small network of width 32 gives 128 features, as many as WRN-28-2.
    setting = Setting("small-4", 4, 1, 8) if speed.quick else Setting("small-32", 64, 1, 8)
    print(
        f"\nDASO on {setting.batch} + {2 * setting.batch} images beyond FixMatch and the EMA features, ms"
    )
    print(
        f"{'K':>5} {'conventional':>13} {'ours':>8}   times conventional    share of our fastest step above"
    )
    found: dict[str, Any] = {}
    for classes in (10,) if speed.quick else (10, 100, 1000):
        remote = Remote(
            speed.threads, OwnWork, Case(setting, "fixmatch+daso", classes, device, speed.clock)
        )
        rounds = [
            remote.call("milliseconds", 5 if speed.quick else 15) for _ in range(speed.rounds)
        ]
        remote.close()
        sides = {side: [numbers[side] for numbers in rounds] for side in ("conventional", "ours")}
        ours, conventional = (statistics.median(sides[side]) for side in ("ours", "conventional"))
        share = None if step is None else ours / 1000 / step
        times = ratio(sides["conventional"], sides["ours"])
        found[str(classes)] = {
            "milliseconds": sides,
            "times_conventional": times,
            "share_of_step": share,
        }
        shown = "" if share is None else f"{share:10.1%}"
        print(f"{classes:5} {conventional:13.2f} {ours:8.2f}   {show(times):19} {shown}")
    return found


def measure_overhead(speed: Speed, case: Case, steps: dict[str, float]) -> dict[str, Any]:
    """Return the seconds of evaluation, checkpoint and logging by precision, and their share of a run by variant."""
    print(f"\nAround the steps, every {PERIOD} of {RUN_STEPS}, with {TEST_IMAGES:,} test images, s")
    # Whole pieces of the evaluation, so that time goes with the number of images.
    period, test = (20, 32) if speed.quick else (PERIOD, 512)
    seconds: dict[str, dict[str, float]] = {}
    shares: dict[str, float] = {}
    for variant in (VARIANTS[name] for name in speed.variants):
        precision, label = variant.precision, str(variant)
        if precision not in seconds:
            remote = Remote(speed.threads, Overhead, case, Variant(precision))
            seconds[precision] = remote.call("seconds", period, test, TEST_IMAGES)
            remote.close()
            print(
                f"{precision:12}"
                + "".join(f"{k} {value:9.3f}  " for k, value in seconds[precision].items())
            )
        if label in steps:
            total = sum(seconds[precision].values())
            shares[label] = total / (PERIOD * steps[label] + total)
            print(f"{label:48} {shares[label]:8.2%} of a run")
    return {"seconds": seconds, "share_of_run": shares}


def measure_memory(speed: Speed, device: str) -> dict[str, Any]:
    """Return the peak host memory of ``daso train cifar10``, above that of importing torch alone."""
    alone = peak_of("import torch", threads=speed.threads)
    print(f"\nPeak host memory of 'daso train cifar10' above torch's own import ({alone:.0f}), MB")
    found: dict[str, Any] = {"torch": alone}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_noise(folder, quick=speed.quick)
        for name in speed.variants:
            variant = VARIANTS[name]
            if not available(variant):
                continue
            run = peak_of_training(
                folder, variant, name, device=device, quick=speed.quick, threads=speed.threads
            )
            peak = run - alone
            found[str(variant)] = {"training": peak}
            print(f"{variant!s:48} {peak:8.0f}")
    return found
