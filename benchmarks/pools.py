"""Pools larger than the memory: time of a step and resident memory by pool size.

    python benchmarks/pools.py --counts 10000 100000 1000000 --csv results/pools.csv

Writes tar shards of small JPEG images (CIFAR-10's, moved and compressed again, so that all differ)
and a folder of labeled ones, and decodes them with ``daso train --cache``. Then it trains in turns
with the pool held in memory and read from the cache, each in a process of its own. Steps per second
are those of the training rows without the first ones; ratios are within a round.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro
from common import print_heading, provenance, ratio
from PIL import Image

from daso.data.open import open_source
from daso.report.results import append_row

SHARD = 10_000
LABELED = 20
"""Labeled images of each class."""


@dataclass(frozen=True)
class Pools:
    """Measure and print."""

    counts: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Unlabeled images."""
    rounds: int = 3
    steps: int = 300
    method: str = "fixmatch+daso"
    method_options: str = ""
    """Further options of the training, in one string with a leading blank: " --darp-start 0
    --darp-period 100"."""
    network: str = "wrn-10-1"
    batch: int = 16
    data: Path | None = None
    """Folder of CIFAR-10's files."""
    out: Path = Path("runs/pools")
    """Folder of shards, cache and runs."""
    csv: Path | None = None
    """File to append rows to."""


def write_shards(options: Pools, images: Any, count: int) -> Path:
    """Write an image folder with unlabeled images in shards, unless it exists."""
    folder = options.out / f"pool-{count}"
    if (folder / "done").exists():
        return folder
    random = np.random.default_rng(count)
    (folder / "unlabeled").mkdir(parents=True, exist_ok=True)
    for start in range(0, count, SHARD):
        with tarfile.open(
            folder / "unlabeled" / f"unlabeled-{start // SHARD:04d}.tar", "w"
        ) as archive:
            for index in range(start, min(start + SHARD, count)):
                image = images[random.integers(len(images))].transpose(1, 2, 0)
                moved = np.roll(image, tuple(random.integers(-8, 9, 2)), (0, 1))
                file = io.BytesIO()
                Image.fromarray(moved).save(file, "JPEG", quality=int(random.integers(70, 98)))
                member = tarfile.TarInfo(f"{index:09d}.jpg")
                member.size = file.tell()
                file.seek(0)
                archive.addfile(member, file)
    return folder


def write_labeled(folder: Path, images: Any, labels: Any, names: tuple[str, ...]) -> None:
    for k, name in enumerate(names):
        where = folder / "labeled" / name
        where.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(labels == k)[:LABELED]:
            Image.fromarray(images[index].transpose(1, 2, 0)).save(where / f"{index}.png")
    (folder / "done").touch()


def train(options: Pools, folder: Path, run: Path, memory: float) -> dict[str, float]:
    """Train in a process of its own; return seconds, steps a second and megabytes."""
    values: dict[str, Any] = {
        "run": folder,
        "out": run,
        "memory": memory,
        "method": options.method,
        "network": options.network,
        "steps": options.steps,
        "evaluate-every": options.steps,
        "log-every": 20,
        "batch": options.batch,
        "cache": options.out / "cache",
        "size": 32,
        "holdout": 0,
        "device": "cpu",
    }
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    extra = [*options.method_options.split(), "--quiet"]
    command = [sys.executable, __file__, *words, *extra]
    start = time.monotonic()
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=dict(os.environ))
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found | {"wall": time.monotonic() - start}


def child(arguments: list[str]) -> None:
    import torch  # noqa: F401 - its own memory is what the rest is compared with

    import daso.cli.verbs.train as command

    imported = _resident()
    run = Path(arguments[arguments.index("--out") + 1])
    with open(os.devnull, "w") as nowhere:
        out, sys.stdout = sys.stdout, nowhere
        command.run(arguments)
        sys.stdout = out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["steps_per_second"] for row in rows if row["event"] == "train"][2:]
    print(json.dumps({"speed": median(speeds), "imported": imported, "peak": _peak()}))


def _resident() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(options: Pools) -> None:
    source = open_source("cifar10", data=options.data)
    images, labels = np.asarray(source.train.images), source.train.labels
    about = provenance()
    in_memory = "in memory: steps/s, MB over torch"
    print_heading("images", "decode and first run, s", in_memory, "from the cache", "ratio")
    for count in options.counts:
        folder = write_shards(options, images, count)
        write_labeled(folder, images, labels, source.class_names)
        first = train(options, folder, options.out / f"first-{count}-{os.getpid()}", 0.0)
        held: list[dict[str, float]] = []
        read: list[dict[str, float]] = []
        for number in range(options.rounds):
            for memory, kept in ((1000.0, held), (0.0, read)):
                run = options.out / f"run-{count}-{number}-{memory:g}-{os.getpid()}"
                kept.append(train(options, folder, run, memory))
        ratios = ratio([r["speed"] for r in read], [r["speed"] for r in held])
        row = {
            "command": f"python benchmarks/pools.py --counts {count} --rounds {options.rounds} "
            f'--method {options.method} --method-options "{options.method_options}"',
            "images": count,
            "method": options.method,
            "method_options": options.method_options.strip(),
            "network": options.network,
            "batch": options.batch,
            "steps": options.steps,
            "first_seconds": f"{first['wall']:.0f}",
            "first_peak_mb": f"{first['peak'] - first['imported']:.0f}",
            "memory_steps_per_second": f"{median(r['speed'] for r in held):.2f}",
            "cache_steps_per_second": f"{median(r['speed'] for r in read):.2f}",
            "ratio": f"{ratios['median']:.3f}",
            "ratio_least": f"{ratios['low']:.3f}",
            "ratio_most": f"{ratios['high']:.3f}",
            "memory_peak_mb": f"{median(r['peak'] - r['imported'] for r in held):.0f}",
            "cache_peak_mb": f"{median(r['peak'] - r['imported'] for r in read):.0f}",
            "memory_wall_seconds": f"{median(r['wall'] for r in held):.0f}",
            "cache_wall_seconds": f"{median(r['wall'] for r in read):.0f}",
            **{name: about[name] for name in ("commit", "hardware", "torch")},
        }
        print(
            f"| {count:,} | {row['first_seconds']} | {row['memory_steps_per_second']}, "
            f"{row['memory_peak_mb']} | {row['cache_steps_per_second']}, {row['cache_peak_mb']} "
            f"| {row['ratio']} ({row['ratio_least']} to {row['ratio_most']}) |",
            flush=True,
        )
        if options.csv is not None:
            append_row(options.csv, row)


if __name__ == "__main__":
    if "--run" in sys.argv:
        child(sys.argv[2:])
    else:
        main(tyro.cli(Pools))
