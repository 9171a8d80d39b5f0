"""A training step in one process and shared by several, on this machine: seconds, and the share of communication.

    python benchmarks/processes.py --sizes 1 2 --network wrn-28-2 --batch 64 --csv results/processes.csv

One thread each, gloo on CPU, random images of 32 pixels, FixMatch + DASO. Rounds of all sizes take turns; printed are
medians, and how many times as fast a step is as in the first size. The batch is the same in all: what is measured is
how much sooner one training ends. A row of the CSV file is what one size took in one round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from provenance import provenance

from daso.report.results import append_row


@dataclass(frozen=True)
class Processes:
    """Measure a step shared by several processes."""

    sizes: tuple[int, ...] = (1, 2)
    """Numbers of processes."""
    network: str = "wrn-28-2"
    """Name of the network."""
    batch: int = 64
    """Labelled images of a step; twice as many are unlabelled."""
    steps: int = 3
    """Measured in each round, after one that is not."""
    rounds: int = 5
    """Of all sizes, taking turns."""
    csv: Path | None = None
    """File to append rows to."""


def measure(options: Processes, rank: int, size: int, meeting: str) -> None:
    """Train some steps as one of several processes; the first one prints seconds of steps and of communication.

    Args:
        options: of the benchmark.
        rank: of this process.
        size: number of processes.
        meeting: file in which they find one another.
    """
    import numpy as np
    import torch
    import torch.distributed as dist

    from daso.data.images.decoded import DecodedImages
    from daso.data.source import Source
    from daso.nets.distributed import Processes as Shared
    from daso.train.config import RunConfig
    from daso.train.options import TrainOptions
    from daso.train.prepare import prepare

    torch.set_num_threads(1)
    talking = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal talking
            start = time.perf_counter()
            result = function(*arguments, **named)
            talking += time.perf_counter() - start
            return result

        return call

    processes = None
    if size > 1:
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=size)
        processes = Shared.of_group()
        for name in ("all_reduce", "all_gather"):
            setattr(dist, name, timed(getattr(dist, name)))
    random = np.random.default_rng(0)

    def pool(count: int) -> DecodedImages:
        pixels = random.integers(256, size=(count, 3, 32, 32)).astype(np.uint8)
        return DecodedImages(pixels, np.arange(count) % 10)

    source = Source("random", tuple("0123456789"), pool(256), unlabeled=pool(512), test=pool(10))
    train = TrainOptions(steps=1000, batch=options.batch, network=options.network, device="cpu")
    prepared = prepare(
        RunConfig("random", "fixmatch+daso", train=train), source, processes=processes
    )
    seconds = []
    for step in range(options.steps + 1):
        batch, start = prepared.batches(step), time.perf_counter()
        if step == 1:
            talking = 0.0
        prepared.training.advance(batch)
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        print(
            json.dumps(
                {"step": statistics.median(seconds[1:]), "talking": talking / sum(seconds[1:])}
            )
        )
    if processes is not None:
        dist.barrier()
        processes.leave()


def main(options: Processes) -> None:
    found: dict[int, list[dict[str, float]]] = {size: [] for size in options.sizes}
    for number in range(options.rounds):
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as place:
                environment = os.environ | {
                    "OMP_NUM_THREADS": "1",
                    "DASO_MEETING": f"{place}/meeting",
                    "DASO_SIZE": str(size),
                }
                running = [
                    subprocess.Popen(
                        [sys.executable, *sys.argv],
                        env=environment | {"DASO_RANK": str(rank)},
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                    for rank in range(size)
                ]
                outputs = [process.communicate()[0] for process in running]
            numbers = json.loads(outputs[0])
            found[size].append(numbers)
            if options.csv is not None:
                row = {
                    "network": options.network,
                    "batch": options.batch,
                    "processes": size,
                    "round": number,
                    "steps": options.steps,
                    "step_seconds": round(numbers["step"], 4),
                    "share_communication": round(numbers["talking"], 4),
                }
                append_row(options.csv, {**row, **provenance(threads=1)})
    first = options.sizes[0]
    print(
        f"{options.network}, {options.batch} + {2 * options.batch} images, medians of {options.rounds} rounds"
    )
    for size, rounds in found.items():
        step = statistics.median(row["step"] for row in rounds)
        talking = statistics.median(row["talking"] for row in rounds)
        ratios = [a["step"] / b["step"] for a, b in zip(found[first], rounds, strict=True)]
        print(
            f"{size} process(es): {step:.2f} s a step, {100 * talking:.0f}% of it communication and waiting, "
            f"{statistics.median(ratios):.2f} times as fast as {first} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    chosen = tyro.cli(Processes)
    if "DASO_RANK" in os.environ:
        measure(
            chosen,
            int(os.environ["DASO_RANK"]),
            int(os.environ["DASO_SIZE"]),
            os.environ["DASO_MEETING"],
        )
    else:
        main(chosen)
