"""Supervised, FixMatch and DASO at a size for a CPU, several seeds, paired splits; variants.

    python benchmarks/lite.py --settings fashion-consistent fashion-reversed --seeds 0 1 2 3 4

`daso reproduce TABLE --scale lite` runs the paper's tables at such a size; Fashion-MNIST is in none
of them. The setting cifar10-consistent is that of its first column, for other precisions and
variants.

A cell (setting, method, seed, precision) that has its row in the results file is not run again, and
a run that was stopped is resumed. Several processes may share one results file. All methods of a
seed see the same split, initial weights and order of labeled images.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro

from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.source import Source
from daso.errors import RunError
from daso.presets.sources import SOURCES
from daso.report.results import append_row, has_row, result_row
from daso.report.runs import read_run
from daso.reproduce.scales import SCALES
from daso.train.config import RunConfig
from daso.train.encoder.precision import choose_precision
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run

FASHION = SplitOptions(
    labeled_head=250, unlabeled_head=3000, gamma_labeled=50, gamma_unlabeled=50, holdout=1000
)
FASHION_TRAIN = TrainOptions(steps=4000, batch=32, network="wrn-10-1", evaluate_every=200)
CIFAR = SplitOptions(
    labeled_head=500, unlabeled_head=4000, gamma_labeled=100, gamma_unlabeled=100, holdout=1000
)
LONGER = replace(CIFAR, labeled_head=1500, unlabeled_head=3000)
LONGER_TRAIN = TrainOptions(
    steps=10000, batch=32, network="wrn-10-2", schedule="one-cycle", evaluate_every=500
)

SETTINGS: dict[str, tuple[str, SplitOptions, TrainOptions]] = {
    "fashion-consistent": ("fashion-mnist", FASHION, FASHION_TRAIN),
    "fashion-reversed": (
        "fashion-mnist",
        replace(FASHION, unlabeled_shape="reversed"),
        FASHION_TRAIN,
    ),
    "cifar10-consistent": ("cifar10", CIFAR, TrainOptions(**SCALES["lite"].train)),
    "cifar10-longer": ("cifar10", LONGER, LONGER_TRAIN),
    "cifar10-longer-reversed": (
        "cifar10",
        replace(LONGER, unlabeled_shape="reversed"),
        LONGER_TRAIN,
    ),
}
"""Source, split and training of each setting. What scales with the length: the warm-up of DASO is a
fifth of it. cifar10-longer is the second column of Table 1 (N1 = 1500, M1 = 3000) at 32 pixels, at
a length where FixMatch is over 50%."""


@dataclass(frozen=True)
class Lite:
    """Run the missing cells and append a row of each to the results file."""

    settings: tuple[str, ...] = ("fashion-consistent", "fashion-reversed")
    """These, or cifar10-consistent."""
    methods: tuple[str, ...] = ("supervised", "fixmatch", "fixmatch+daso")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    data: Path | None = None
    """Folder of the source's files."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    variant: str = ""
    """Name of a variant of the method whose options --options gives; a column of the results."""
    options: str = "{}"
    """Hyper-parameters of the method, as a JSON object."""
    steps: int | None = None
    """Training steps (default: the setting's)."""
    threads: int = 1
    """Threads of torch: two processes of one thread do more than one process of two."""
    results: Path = Path("results/lite.csv")
    runs: Path = Path("runs/lite")


def train(config: RunConfig, source: Source, folder: Path) -> None:
    """Train into *folder*, or resume the run that is there."""
    prepared = prepare(config, source)
    if (folder / "config.json").exists():
        there = RunConfig.read(folder)
        if there.fingerprint() != prepared.config.fingerprint():
            raise RunError(
                f"{folder} holds a run of another configuration; remove it or give --runs another "
                "folder"
            )
        _, rows = resume_run(folder, lambda message: print(message, file=sys.stderr))
    else:
        rows = train_run(prepared, folder)
    for row in rows:
        if row["event"] == "evaluate" and row["step"] % 500 == 0:
            print(
                f"{folder} {row['step']} {100 * row['test']['balanced_accuracy']:.2f}", flush=True
            )


def main(lite: Lite) -> None:
    torch.set_num_threads(lite.threads)
    precision = lite.precision
    if precision == "auto":
        precision = choose_precision(torch.device("cpu")).precision
    sources: dict[str, Source] = {}
    for seed, setting, method in itertools.product(lite.seeds, lite.settings, lite.methods):
        name, split, options = SETTINGS[setting]
        steps = lite.steps or options.steps
        options = replace(options, seed=seed, precision=precision, steps=steps, device="cpu")
        key = {
            "setting": setting,
            "method": method,
            "variant": lite.variant,
            "seed": str(seed),
            "precision": precision,
            "steps": str(steps),
        }
        if has_row(lite.results, key):
            continue
        if name not in sources:
            sources[name] = open_source(name, data=lite.data)
        values = json.loads(lite.options)
        if "daso" in method:
            values = {"dist_temperature": SOURCES[name].temperature_for(split), **values}
        data = None if lite.data is None else str(lite.data)
        config = RunConfig(name, method, data, split=split, method_options=values, train=options)
        folder = lite.runs / "-".join(filter(None, key.values()))
        started = time.strftime("%Y-%m-%d")
        train(config, sources[name], folder)
        append_row(lite.results, {**key, "date": started, **result_row(read_run(folder))}, key)


if __name__ == "__main__":
    main(tyro.cli(Lite))
