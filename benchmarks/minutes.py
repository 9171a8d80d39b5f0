"""Balanced accuracy against seconds, from the typing of the command to the model written.

    python benchmarks/minutes.py --data FOLDER --seeds 0 1 --budget 120
    python benchmarks/minutes.py --setting cifar-folders --data FOLDER
    python benchmarks/minutes.py --setting solar-cells-frozen --weights lite0.safetensors

Each side is a command on image folders, in a process of its own: Fashion-MNIST or CIFAR-10 in PNG
files (``own_images.py``: 694 labeled, 59,306 or 49,306 unlabeled, 10,000 for the test), or
photographs of solar cells (``elpv.py``: 292, 1,546, 786) embedded by EfficientNet-Lite0. Start,
decoding, training, evaluations and checkpoints count. A point of the curve is an evaluation, at the
moment when its model is on the disk. Core-seconds are the processor time of the command and of its
data loaders, which other work on the machine changes less than the clock. A command is stopped once
it has used its budget of them. The conventional pipeline runs with the allocator's setting, without
data loaders or with one or two for each pool: the first seed tries them, the fastest number stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from common import daso_command, environment_with, provenance, read_csv
from elpv import write_elpv
from own_images import write_folders

from daso.data.open import open_source
from daso.files import read_rows
from daso.report.results import append_row, has_row
from daso.train.folder.checkpoint import newest_step

BENCHMARKS = Path(__file__).parent
DASO = {
    "bare default": "",
    "mixture alone": "--method supervised+la+mixture --steps 0",
    "supervised+la": "--method supervised+la",
    "fixmatch+daso": "--method fixmatch+daso",
}
"""Options added to ``daso train FOLDER``, by side."""
CONVENTIONAL = "conventional fixmatch+daso"
FROZEN = "--freeze --network timm:tf_efficientnet_lite0 --embedding-folder"
TARGETS = {"fashion-folders": 77.6, "cifar-folders": 44.0, "solar-cells-frozen": 48.0}
"""Balanced accuracy in percent to reach, by setting: what earlier methods had after minutes."""
PATIENCE = 30.0
"""Seconds that a stopped command has to end."""


class Point(NamedTuple):
    """An evaluation whose model is written: when, and balanced accuracy in percent."""

    core_seconds: float
    wall_seconds: float
    accuracy: float


@dataclass(frozen=True)
class Minutes:
    """Run the missing sides and append a row of each to the results file."""

    setting: str = "fashion-folders"
    """fashion-folders, cifar-folders, solar-cells-frozen."""
    sides: tuple[str, ...] = (*DASO, CONVENTIONAL)
    """The conventional pipeline is for folders that are not embedded."""
    seeds: tuple[int, ...] = (0,)
    budget: float = 120.0
    """Core-seconds of a side."""
    threads: int = 1
    data: Path | None = None
    """Folder of the files of Fashion-MNIST or CIFAR-10."""
    weights: Path | None = None
    """Of EfficientNet-Lite0, for the embeddings; see docs/backbones.md."""
    out: Path = Path("runs/minutes")
    """Folder of image folders and runs."""
    results: Path = Path("results/minutes.csv")
    picture: Path | None = None
    """File for a picture of the setting's curves, for example minutes.png."""

    @property
    def target(self) -> float:
        return TARGETS[self.setting]

    def folders(self, seed: int) -> Path:
        """Write the image folders of a seed unless they are there; return their place."""
        if self.setting == "solar-cells-frozen":
            return write_elpv(self.out / f"elpv-{seed}", seed)
        name = "fashion" if self.setting == "fashion-folders" else "cifar"
        folder = self.out / f"{name}-{seed}"
        if not (folder / "done").exists():
            source = {"fashion": "fashion-mnist", "cifar": "cifar10"}[name]
            write_folders(open_source(source, data=self.data), folder, seed)
        return folder

    def encoder(self, run: Path) -> list[str]:
        """Return the options of a frozen encoder, none of whose embeddings is kept yet."""
        if self.setting != "solar-cells-frozen":
            return []
        return [
            *FROZEN.split(),
            str(run.with_name(f"{run.name}-embeddings")),
            "--weights",
            str(self.weights),
        ]


def core_seconds(session: int) -> float:
    """Return the processor time of a session's processes, and of those that have ended in it."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def follow(
    command: Sequence[str], run: Path, budget: float, *, threads: int, every: float = 0.25
) -> tuple[list[Point], Point | None]:
    """Run a command that writes into the folder *run*; return its curve, and its end.

    Returns:
        The evaluations within the budget, and, unless the command was stopped, when it had ended,
        with the last accuracy.

    Raises:
        RuntimeError: the command failed.
    """
    points: list[Point] = []
    log = run.with_name(f"{run.name}.log")
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment_with(threads),
            start_new_session=True,
        )
        try:
            spent, ended = 0.0, False
            while not ended:
                ended = process.poll() is not None
                # An ended process is gone from /proc: what it spent last is what it was seen with.
                spent = max(spent, core_seconds(process.pid))
                wall = time.perf_counter() - started
                for accuracy in written(run)[len(points) :]:
                    points.append(Point(spent, wall, accuracy))
                if spent > budget and not ended:
                    return [point for point in points if point.core_seconds <= budget], None
                if not ended:
                    time.sleep(every)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever is left
            process.wait()
    if process.returncode or not points:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return points, Point(spent, wall, points[-1].accuracy)


def written(run: Path) -> list[float]:
    """Return the balanced accuracies, in percent, of the evaluations whose model is written."""
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["event"] == "evaluate"]
    if (run / "checkpoints").exists():
        newest = newest_step(run / "checkpoints")
        rows = [row for row in rows if newest is not None and row["step"] <= newest]
    return [100 * row["test"]["balanced_accuracy"] for row in rows]


def area(points: Sequence[Point], budget: float) -> float:
    """Return the mean accuracy over the budget of core-seconds; 0 before the first model."""
    ends = [point.core_seconds for point in points[1:]] + [budget]
    parts = zip(points, ends, strict=False)
    return sum((end - point.core_seconds) * point.accuracy for point, end in parts) / budget


def summary(points: Sequence[Point], end: Point | None, minutes: Minutes) -> dict[str, Any]:
    reached = next((point for point in points if point.accuracy >= minutes.target), None)
    first = points[0] if points else None

    def two(point: Point | None, name: str) -> dict[str, str]:
        cores, wall = ("", "") if point is None else (f"{s:.1f}" for s in point[:2])
        return {f"core_seconds_{name}": cores, f"wall_seconds_{name}": wall}

    curve = [[round(value, 2) for value in point] for point in points]
    return {
        **two(first, "to_first_model"),
        "first_accuracy": "" if first is None else f"{first.accuracy:.2f}",
        **two(reached, "to_target"),
        **two(end, "whole_command"),
        "last_accuracy": f"{points[-1].accuracy:.2f}" if points else "",
        "best_accuracy": f"{max(point.accuracy for point in points):.2f}" if points else "",
        "area": f"{area(points, minutes.budget):.2f}",
        "curve": json.dumps(curve),
    }


def conventional(folder: Path, run: Path, *added: str) -> list[str]:
    script = str(BENCHMARKS / "conventional_folder.py")
    return [sys.executable, script, str(folder), str(run), *added]


def fastest_workers(folder: Path, threads: int) -> str:
    """Return the number of data loaders with which the conventional pipeline is fastest."""
    command = conventional(folder, folder / "unused", "--try-workers")
    return subprocess.check_output(command, env=environment_with(threads), text=True).strip()


def draw(rows: Sequence[dict[str, str]], path: Path, target: float) -> None:
    """Draw the curves of rows: balanced accuracy against core-seconds, a color for each side."""
    from matplotlib.figure import Figure

    figure = Figure((7, 4.5), layout="constrained")
    axes = figure.subplots()
    sides = list(dict.fromkeys(row["side"] for row in rows))
    for row in rows:
        points = json.loads(row["curve"])
        if not points:
            continue
        cores, _, accuracy = zip(*points, strict=True)
        side = sides.index(row["side"])
        first = row is next(other for other in rows if other["side"] == row["side"])
        label = row["side"] if first else None
        axes.step(cores, accuracy, where="post", color=f"C{side}", marker=".", label=label)
    axes.axhline(target, color="gray", linewidth=0.8, linestyle=":")
    axes.set_xlabel("core-seconds since the command was typed")
    axes.set_ylabel("balanced accuracy, %")
    axes.set_xlim(left=0)
    axes.legend()
    figure.savefig(path, dpi=150)


def main(minutes: Minutes) -> None:
    workers = ""
    for seed in minutes.seeds:
        folder = minutes.folders(seed)
        for side in minutes.sides:
            key = {"setting": minutes.setting, "side": side, "seed": str(seed)}
            key |= {"budget": f"{minutes.budget:g}", "threads": str(minutes.threads)}
            if has_row(minutes.results, key):
                continue
            name = f"run-{minutes.setting}-{seed}-{side.replace(' ', '-')}-{time.time_ns()}"
            run = minutes.out / name
            if side == CONVENTIONAL:
                workers = workers or fastest_workers(folder, minutes.threads)
                command = conventional(folder, run, "--seed", str(seed), "--workers", workers)
            else:
                words = ["train", str(folder), "--out", str(run), "--seed", str(seed)]
                words += [*DASO[side].split(), *minutes.encoder(run)]
                command = daso_command(*words)
            points, end = follow(command, run, minutes.budget, threads=minutes.threads)
            about = {**key, "target": f"{minutes.target:g}", **summary(points, end, minutes)}
            shown = {name: value for name, value in about.items() if name != "curve"}
            print(json.dumps(shown), flush=True)
            about["workers"] = workers if side == CONVENTIONAL else ""
            append_row(minutes.results, {**about, **provenance(minutes.threads)}, key)
    if minutes.picture is not None:
        rows = [row for row in read_csv(minutes.results) if row["setting"] == minutes.setting]
        draw(rows, minutes.picture, minutes.target)


if __name__ == "__main__":
    main(tyro.cli(Minutes))
