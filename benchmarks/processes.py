"""A training step in several processes of one thread against one process of as many threads.

    python benchmarks/processes.py --data PATH_OF_CIFAR10

Both sides run ``daso train`` on CIFAR-10-LT, the first one under torchrun, until they have done
some steps; their rounds alternate. The time of a step is that between the first and the last row.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Literal

import tyro
from common import daso_command, environment_with, provenance, ratio, show, spread_of

from daso.files import read_rows
from daso.report.results import append_row


@dataclass(frozen=True)
class Processes:
    """Time both sides and append a row to the results file."""

    data: Path
    """Folder of CIFAR-10."""
    processes: int = 2
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    method: str = "fixmatch+daso"
    steps: int = 40
    rounds: int = 3
    results: Path = Path("results/threads.csv")


def seconds_a_step(options: Processes, processes: int) -> float:
    threads = options.processes // processes
    with tempfile.TemporaryDirectory() as place:
        words = ["train", "cifar10-n500-g100", "--data", options.data, "--method", options.method]
        words += ["--precision", options.precision, "--device", "cpu", "--out", f"{place}/run"]
        command = daso_command(*words, "--log-every", 5)
        if processes > 1:
            torchrun = ["-m", "torch.distributed.run", "--standalone"]
            torchrun += [f"--nproc-per-node={processes}"]
            command = [sys.executable, *torchrun, *command[1:]]
        environment = environment_with(threads)
        with subprocess.Popen(command, env=environment, stdout=DEVNULL, stderr=DEVNULL) as run:
            rows: list[Any] = []
            while run.poll() is None and not (rows and rows[-1]["step"] >= options.steps):
                time.sleep(0.2)
                path = Path(place, "run", "metrics.jsonl")
                rows = read_rows(path) if path.exists() else []
            run.terminate()
    first, *_, last = rows
    return float(last["seconds"] - first["seconds"]) / float(last["step"] - first["step"])


def main(options: Processes) -> None:
    sides = {"one": 1, "several": options.processes}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, processes in sides.items():
            seconds[name].append(seconds_a_step(options, processes))
    times = ratio(seconds["one"], seconds["several"])
    print(f"one process of {options.processes} threads / {options.processes} of one: {show(times)}")
    row: dict[str, Any] = {"processes": options.processes, "precision": options.precision}
    row |= {"method": options.method, "steps": options.steps, "rounds": options.rounds}
    row |= {f"{name}_seconds": f"{spread_of(s)['median']:.4f}" for name, s in seconds.items()}
    row |= {"times_as_fast": f"{times['median']:.2f}"}
    append_row(options.results, {**row, **provenance(options.processes)})


if __name__ == "__main__":
    main(tyro.cli(Processes))
