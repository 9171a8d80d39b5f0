"""Train a cell of the paper's table on a GPU, some minutes at a time: each call goes on where the last one stopped.

python benchmarks/gpu_cell.py --minutes 9 --data /datasets --out runs/gpu-cell
"""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from daso.files import read_rows


@dataclass(frozen=True)
class Cell:
    """Train a cell of the paper's table on a GPU, some minutes at a time."""

    minutes: float = 9.0
    """The training is asked to stop then; it saves a checkpoint first."""
    preset: str = "cifar10-n500-g100"
    """Which cell: see daso presets."""
    method: str = "fixmatch+daso"
    """Which method."""
    seed: int = 0
    """Which seed, of the split too."""
    out: Path = Path("runs/gpu-cell")
    """Its run folder."""
    data: Path | None = None
    """Where the data set's files are (default: the usual places)."""
    device: str = "cuda"
    """cuda, cuda:1, cpu."""
    options: tuple[str, ...] = ("--precision", "bfloat16", "--cuda-graph")
    """How a new run is computed: further options of daso train."""


def command_of(cell: Cell) -> list[str]:
    """Return the command that begins the run, or goes on with it."""
    program = [sys.executable, "-m", "daso"]
    place = [] if cell.data is None else ["--data", str(cell.data)]
    if (cell.out / "config.json").exists():
        return [*program, "resume", str(cell.out), *place]
    chosen = ["--method", cell.method, "--seed", str(cell.seed), "--device", cell.device]
    return [*program, "train", cell.preset, *chosen, *place, "--out", str(cell.out), *cell.options]


def main(cell: Cell) -> int:
    if cell.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"there is no CUDA device here (torch {torch.__version__})")
    command = command_of(cell)
    print(" ".join(command), flush=True)
    process = subprocess.Popen(command)
    try:
        code = process.wait(60 * cell.minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
        code = 0
    rows = read_rows(cell.out / "metrics.jsonl")
    for event in ("train", "evaluate"):
        if last := [row for row in rows if row["event"] == event][-1:]:
            step, measured = last[0]["step"], last[0].get("test", last[0])
            shown = ("loss", "steps_per_second", "accuracy", "balanced_accuracy")
            numbers = ", ".join(
                f"{name} {measured[name]:.4g}" for name in shown if name in measured
            )
            print(f"{event}, step {step:,}: {numbers}")
    return code


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Cell)))
