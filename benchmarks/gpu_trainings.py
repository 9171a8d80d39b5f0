"""Options and trainings of ``gpu.py``: seeds side by side and a cell of a table, as processes."""

from __future__ import annotations

import math
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import daso_command
from steps import Case

from daso.files import read_rows

Numbers = dict[str, Any]

CELL_RESERVE_SECONDS = 20.0
"""Time that a stopped cell has to save its checkpoint."""


@dataclass(frozen=True)
class Gpu:
    """Measure training on a GPU."""

    minutes: float = 8.0
    """Time for everything."""
    rounds: int = 5
    """Rounds, in each of which every variant has its turn."""
    seeds: tuple[int, ...] = (1, 2, 4)
    """Numbers of trainings side by side."""
    preset: str = "cifar10-n500-g100"
    """Setting of the cell of Table 1."""
    method: str = "fixmatch+daso"
    """Method of the cell."""
    data: Path | None = None
    """Location of the data set (default: the usual places)."""
    out: Path = Path("runs/gpu")
    """Folder of gpu.json and of the cell's run."""
    results: Path | None = None
    """CSV file to append a row to for every measured variant."""
    device: str = "cuda"
    """cuda, cuda:1; cpu with --quick."""
    quick: bool = False
    """Measure everything once on tiny sizes, to test that it works."""


def start_daso(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(daso_command(*arguments), stdout=subprocess.DEVNULL)


def how(gpu: Gpu) -> list[str]:
    recorded = ["--cuda-graph"] if gpu.device.startswith("cuda") else []
    return ["--device", gpu.device, "--precision", "bfloat16", *recorded, "--quiet"]


def measure_seeds(gpu: Gpu, case: Case, numbers: Numbers) -> None:
    """Print the total steps per second of several ``daso train`` side by side."""
    setting, steps = case.setting, 40 if gpu.quick else 1000
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "noise.npz"
        shape = (max(1000, 60 * setting.batch), setting.side, setting.side, setting.channels)
        pixels = random.integers(0, 256, shape, np.uint8)
        labels = np.arange(len(pixels)) % case.num_classes
        np.savez(images, train_images=pixels, train_labels=labels)
        split = "--labeled-head 10 --unlabeled-head 40 --gamma-labeled 1 --gamma-unlabeled 1"
        command = ["train", str(images), "--method", case.method, *split.split(), "--holdout", "0"]
        command += ["--network", setting.network, "--batch", str(setting.batch), *how(gpu)]
        command += ["--steps", str(steps), "--evaluate-every", str(steps), "--log-every", "20"]
        for count in gpu.seeds[:1] if gpu.quick else gpu.seeds:
            runs = [Path(place) / f"{count}-{seed}" for seed in range(count)]
            running = [
                start_daso([*command, "--seed", str(seed), "--out", str(run)])
                for seed, run in enumerate(runs)
            ]
            statuses = [process.wait() for process in running]
            if any(statuses):
                raise RuntimeError(f"a training of {count} side by side failed")
            speeds = []
            for run in runs:
                rows = [r for r in read_rows(run / "metrics.jsonl") if r["event"] == "train"]
                # Without the start, and the end, when others may be done already.
                middle = rows[len(rows) // 4 : max(len(rows) // 4 + 1, 3 * len(rows) // 4)]
                speeds.append(statistics.median(row["steps_per_second"] for row in middle))
            numbers[str(count)] = sum(speeds)
            print(f"{count} side by side: {sum(speeds):8.1f} steps/s in total", flush=True)


def train_cell(gpu: Gpu, until: float, numbers: Numbers) -> None:
    run = gpu.out / f"{gpu.preset}-{gpu.method}"
    place = [] if gpu.data is None else ["--data", str(gpu.data)]
    command = ["resume", str(run), *place, "--quiet"]
    if not (run / "config.json").exists():
        command = ["train", gpu.preset, "--method", gpu.method, "--seed", "0", *place, *how(gpu)]
        command += ["--out", str(run)]
        if gpu.quick:
            split = "--labeled-head 10 --unlabeled-head 20 --gamma-labeled 5 --gamma-unlabeled 5"
            tiny = f"--network small-4 --steps 8 --evaluate-every 4 --batch 4 {split} --holdout 10"
            command += tiny.split()
    print("daso " + " ".join(command), flush=True)
    process = start_daso(command)
    left = until - CELL_RESERVE_SECONDS - time.monotonic()
    try:
        status = process.wait(None if math.isinf(left) else max(1.0, left))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # saves a checkpoint
        status = process.wait()
    rows = read_rows(run / "metrics.jsonl")
    if not rows or status not in (0, 128 + signal.SIGTERM):
        raise RuntimeError(f"the training ended with status {status} after {len(rows)} rows")
    shown = ("loss", "steps_per_second", "accuracy", "balanced_accuracy")
    for event in ("train", "evaluate"):
        if last := [row for row in rows if row["event"] == event][-1:]:
            values = last[0].get("test", last[0])
            numbers[event] = {name: values[name] for name in shown if name in values}
            numbers[event]["step"] = last[0]["step"]
            print(event, ", ".join(f"{name} {v:.4g}" for name, v in numbers[event].items()))
