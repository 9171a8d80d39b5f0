"""How time and memory grow with the pool, the classes and the size of the images.

    python benchmarks/growth.py --csv results/growth.csv
    python benchmarks/growth.py --csv results/growth.csv --picture docs/growth.png

Every point is an ``.npz`` file of made images, 20 labels of each class, and commands in processes
of their own: steps of FixMatch + DASO; the mixture alone, without a training; ``daso report`` on
it; ``daso predict``; ``daso data check``. Core-seconds are the processor time of a whole command,
which other work on the machine changes less than the clock. ``daso label`` is asked for its page,
its state and 40 suggestions, and is given their labels one by one, while it compares the images. A
point that has its row is not run again.
"""

from __future__ import annotations

import http.cookiejar
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tyro
from common import daso_command, environment_with, provenance, read_csv

from daso.files import read_rows
from daso.report.results import append_row, has_row

LABELED = 20
"""Labeled images of each class."""
MOST_PREDICTED = 100_000
STEPS, FEWER_STEPS, FEWEST_STEPS, BATCH = 60, 20, 4, 16
"""Steps of a training, of one on images of more than 128 pixels, and of one on more than 256, which
computes activations again (``--recompute``)."""
CELLS = 4
"""Cells on a side of the pattern that the images of a class share."""
CHUNK = 1_000
ACTIONS = 40
COLUMNS = {
    "step_seconds": "seconds a step",
    "step_peak_mb": "MB, training",
    "mixture_seconds": "core-seconds, mixture",
    "mixture_peak_mb": "MB, mixture",
    "report_seconds": "core-seconds, report",
    "predict_seconds_per_1000": "core-seconds, predict 1,000",
    "check_seconds": "core-seconds, data check",
    "label_open_seconds": "seconds, label opens",
    "label_action_ms": "ms, label acts",
}
"""What is drawn, and how it is called."""


class Point(NamedTuple):
    """What is measured: unlabeled images, classes, and pixels of a side."""

    images: int = 10_000
    classes: int = 10
    side: int = 32


AXES: dict[str, list[Point]] = {
    "images": [Point(images=count) for count in (1_000, 10_000, 100_000, 1_000_000)],
    "classes": [Point(classes=count) for count in (10, 100, 1_000)],
    "side": [Point(2_000, side=side) for side in (28, 64, 128, 256, 512)],
}


@dataclass(frozen=True)
class Growth:
    """Measure the missing points, or draw all of them."""

    axes: tuple[str, ...] = tuple(AXES)
    largest: int = 1_000_000
    """Leave out points with more unlabeled images."""
    threads: int = 1
    out: Path = Path("runs/growth")
    """Folder of images and runs; what is in it is removed."""
    csv: Path = Path("results/growth.csv")
    picture: Path | None = None
    """File for a picture of all rows."""


def make_images(labels: npt.NDArray[np.int64], side: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return images of classes, uint8 (N, side, side): a pattern of the class, moved, and noise."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(40, 216, (labels.max() + 1, CELLS, CELLS))
    images = np.empty((len(labels), side, side), np.uint8)
    place = np.arange(side) * CELLS // side
    for start in range(0, len(labels), CHUNK):
        some = labels[start : start + CHUNK]
        whole = patterns[some][:, place[:, None], place]
        shift = random.integers(0, side, 2)
        noise = random.integers(-40, 40, whole.shape)
        images[start : start + CHUNK] = np.roll(whole, shift, (1, 2)) + noise
    return images


def write_images(point: Point, folder: Path) -> tuple[Path, Path]:
    """Write the training images and those to predict; return the files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels = np.repeat(np.arange(point.classes), LABELED)
    hidden = np.arange(point.images) % point.classes
    unlabeled = make_images(hidden, point.side, 1)
    train, more = folder / "images.npz", folder / "more.npz"
    labeled = make_images(np.random.default_rng(0).permutation(labels), point.side, 2)
    labels = np.random.default_rng(0).permutation(labels)
    np.savez(train, images=labeled, labels=labels, unlabeled_images=unlabeled)
    np.savez(more, images=unlabeled[:MOST_PREDICTED])
    return train, more


def run(threads: int, *words: object) -> tuple[float, float]:
    """Run a command of daso; return its core-seconds and the MB of its largest process."""
    command = daso_command(*words)
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment_with(threads), **how) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said.decode()[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def label(threads: int, train: Path, out: Path) -> tuple[float, float]:
    """Return the seconds until the page can be used, and until 19 of 20 actions are answered."""
    command = daso_command("label", train, "--no-open", "--port", 0, "--out", out)
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment_with(threads), **how) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if "http://" in line), "")
            address = line.split()[-1]
            host, _, token = address.partition("/?token=")

            def ask(path: str, sent: dict[str, Any] | None = None) -> Any:
                body = None if sent is None else json.dumps(sent).encode()
                headers = {"x-daso-token": token, "Origin": host}
                headers |= {"Content-Type": "application/json"}
                with browser.open(urllib.request.Request(host + path, body, headers)) as answer:
                    return answer.read()

            started = time.perf_counter()
            ask(f"/?token={token}")
            classes = json.loads(ask("/api/state"))["classes"]
            images = json.loads(ask(f"/api/suggest?count={ACTIONS}"))["images"]
            opened = time.perf_counter() - started
            times = []
            for number, image in enumerate(images):
                name = classes[number % len(classes)]["name"]
                sent = {"images": [image["image"]], "label": name, "action": uuid.uuid4().hex}
                started = time.perf_counter()
                ask("/api/assign", sent)
                times.append(time.perf_counter() - started)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    return opened, float(np.quantile(times, 0.95))


def measure(point: Point, options: Growth) -> dict[str, str]:
    # In a process of its own: the peak of a command is at least that of the one that starts it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        train, more = pool.submit(write_images, point, options.out).result()
    trained, fitted = options.out / "trained", options.out / "fitted"
    common = ["--holdout", 0, "--device", "cpu", "--precision", "float32"]
    large = point.side > 256
    steps = FEWEST_STEPS if large else STEPS if point.side <= 128 else FEWER_STEPS
    words = ["--method", "fixmatch+daso", "--network", "small", "--steps", steps, "--batch", BATCH]
    words += ["--recompute"] * large
    _, step_peak = run(options.threads, "train", train, *words, *common, "--out", trained)
    rows = [row for row in read_rows(trained / "metrics.jsonl") if row["event"] == "train"]
    step = 1 / max(row["steps_per_second"] for row in rows)
    words = ["--method", "supervised+la+mixture", "--steps", 0]
    mixture, mixture_peak = run(options.threads, "train", train, *words, *common, "--out", fitted)
    report, _ = run(options.threads, "report", fitted)
    predict, _ = run(options.threads, "predict", fitted, more, "--out", options.out / "answers.csv")
    check, _ = run(options.threads, "data", "check", train)
    opened, acted = label(options.threads, train, options.out / "page")
    found = {
        "step_seconds": step,
        "step_peak_mb": step_peak,
        "mixture_seconds": mixture,
        "mixture_peak_mb": mixture_peak,
        "report_seconds": report,
        "predict_seconds_per_1000": 1000 * predict / min(point.images, MOST_PREDICTED),
        "check_seconds": check,
        "label_open_seconds": opened,
        "label_action_ms": 1000 * acted,
    }
    return {name: f"{value:.4g}" for name, value in found.items()}


def draw(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draw a chart for each axis, relative to its first point; both scales are logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure((11, 4), layout="constrained")
    charts = figure.subplots(1, len(AXES), sharey=True)
    for axes, (name, points) in zip(charts, AXES.items(), strict=True):
        keys = [{n: str(v) for n, v in point._asdict().items()} for point in points]
        found = [row for key in keys for row in rows if key.items() <= row.items()]
        x = np.array([float(row[name]) for row in found])
        linear = x**2 if name == "side" else x
        axes.plot(x, linear / linear[0], ":", color="gray", label="in proportion")
        for column, called in COLUMNS.items():
            y = np.array([float(row[column]) for row in found])
            axes.plot(x, y / y[0], marker="o", markersize=4, label=called)
        axes.set(xscale="log", yscale="log", xlabel=f"{name}{', pixels' * (name == 'side')}")
        axes.set_xticks(x, [f"{value:,.0f}" for value in x], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    charts[0].set_ylabel("times the first point")
    figure.legend(*charts[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def main(options: Growth) -> None:
    points = [point for name in options.axes for point in AXES[name]]
    for point in dict.fromkeys(p for p in points if p.images <= options.largest):
        key = {name: str(value) for name, value in point._asdict().items()}
        if has_row(options.csv, key):
            continue
        found = measure(point, options)
        print({**key, **found}, flush=True)
        append_row(options.csv, {**key, **found, **provenance(options.threads)}, key)
    shutil.rmtree(options.out, ignore_errors=True)
    if options.picture is not None:
        draw(read_csv(options.csv), options.picture)


if __name__ == "__main__":
    main(tyro.cli(Growth))
