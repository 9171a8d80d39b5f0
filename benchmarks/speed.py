"""Compare the speed of a training step with that of the conventional pipeline of benchmarks/conventional.py.

    python benchmarks/speed.py --settings wrn-28-2-64 --rounds 5 --csv results/speed.csv

Each side lives in a process of its own, and their rounds take turns, so that all meet the same state of the machine:
the ratio of a round is taken within that round, and the table gives the median of the ratios with the lowest and
the highest. The images are noise, which takes as long as any others. "Joint batch norm" is FixMatch's way, one forward
pass over labelled, weak and strong images, as in the conventional pipeline; with the "weak view apart" the weak
images go through the network by themselves, without a gradient (``--weak-pass apart``).

The share of the limit is that of the fastest arithmetic found in the same precision: a matrix product or, on a CPU,
a wide convolution (benchmarks/layers.py tells one layer from the other). On a machine that has other
work, ``--clock processor`` takes the processor time of all threads and data loaders of a side instead: the ratios are
then steady, but what a thread waits for another does not count.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import Any

import torch
import tyro
from cases import Case
from limits import Limits
from remote import Remote
from speed_options import CONVENTIONAL, SETTINGS, Speed, quick
from speed_rows import write_rows
from speed_sections import measure_memory, measure_overhead, measure_own_work, measure_steps

from daso.train.step.state import choose_device


def step_seconds(settings: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of our steps of DASO by variant, of the first setting in which they were measured."""
    for cases in settings.values():
        for name, case in cases.items():
            if "daso" in name:
                sides = case["variants"].items()
                return {
                    label: statistics.median(side["seconds"])
                    for label, side in sides
                    if label != CONVENTIONAL
                }
    return {}


def main(speed: Speed) -> None:
    if speed.quick:
        speed = quick(speed)
    if speed.clock == "processor":
        os.environ["OMP_WAIT_POLICY"] = (
            "passive"  # a thread that waits by spinning would be seen as busy
        )
    device = str(choose_device(speed.device))
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    print(
        f"torch {torch.__version__}, {name}, {speed.threads} thread(s), {speed.rounds} rounds of {speed.steps} steps"
    )
    remote = Remote(
        speed.threads,
        Limits,
        device,
        speed.clock,
        256 if speed.quick else 8192 if name != "CPU" else 2048,
    )
    limits: dict[str, float] = remote.call("rates")
    remote.close()
    print(
        f"limits: float32 {limits['float32']:,.0f} GFLOP/s, bfloat16 {limits['bfloat16']:,.0f} GFLOP/s; "
        f"memory copy {limits['copy']:,.1f} GB/s"
    )
    machine = {"torch": torch.__version__, "device": name, "threads": speed.threads}
    result: dict[str, Any] = {"machine": machine, "limits": limits, "settings": {}}
    for chosen in speed.settings:
        setting = SETTINGS[chosen]
        if setting.needs_cuda and not device.startswith("cuda"):
            print(f"\n{chosen}: needs a CUDA device")
            continue
        if "steps" in speed.sections:
            result["settings"][chosen] = {
                f"{method}, K = {classes}": measure_steps(
                    speed, Case(setting, method, classes, device, speed.clock), limits
                )
                for method in speed.methods
                for classes in speed.classes
            }
    steps = step_seconds(result["settings"])
    fastest = min(steps.values(), default=None)

    def keep(**section: Any) -> None:
        result.update(section)
        if speed.csv is not None:
            write_rows(speed.csv, speed, section, fastest)

    keep(settings=result["settings"])
    if "own-work" in speed.sections:
        keep(own_work=measure_own_work(speed, device, fastest))
    if "overhead" in speed.sections:
        case = Case(SETTINGS[speed.settings[0]], "fixmatch+daso", 10, device, speed.clock)
        keep(overhead=measure_overhead(speed, case, steps))
    if "memory" in speed.sections:
        keep(memory=measure_memory(speed, device))
    if speed.json is not None:
        speed.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Speed))
