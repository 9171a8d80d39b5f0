"""What unlabeled images bring in seconds and in minutes, whatever their class distribution.

    python benchmarks/unlabeled.py --data FOLDER --sources cifar10 --seeds 100 101
    python benchmarks/unlabeled.py --sides patches,-labels patches --shapes uniform reversed
    python benchmarks/unlabeled.py --sources elpv

The labels fall from 250 to 5 of a class, or from 50 to 1. The unlabeled images are distributed like
them (consistent, 2,000 to 40), uniformly (700 of every class), the other way round (reversed) or
most in the classes between (middle). In subset, half of the classes have none. In strangers, seven
classes are labeled, and 30% of the unlabeled images are of the three others. The seed draws which.
elpv are photographs of solar cells as they are, see ``elpv.py``. Sides that share a seed share the
split. A cell that has its row in the results file is not run
again; one that was stopped is resumed. Seeds from 100 on are for development; results are reported
for seeds 0 to 4.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from elpv import write_elpv
from lite import train

from daso.data.images.decoded import DecodedImages
from daso.data.longtail import Indices, SplitOptions
from daso.data.open import open_source
from daso.data.source import UNLABELED, Source
from daso.report.results import append_row, has_row, result_row
from daso.report.runs import read_run
from daso.train.config import RunConfig
from daso.train.options import TrainOptions

LABELS = {"250-5": (250, 50.0), "50-1": (50, 50.0)}
SHAPES: dict[str, dict[str, Any]] = {
    "consistent": {"unlabeled_head": 2000, "gamma_unlabeled": 50.0},
    "uniform": {"unlabeled_head": 700, "gamma_unlabeled": 1.0},
    "reversed": {
        "unlabeled_head": 2000,
        "gamma_unlabeled": 50.0,
        "unlabeled_shape": "reversed",
    },
    "middle": {"unlabeled_head": 2000, "gamma_unlabeled": 50.0, "unlabeled_shape": "middle"},
}
SOLAR_SIDE = 64
"""Side in pixels of solar cells on which a network is trained; at 300 that takes half an hour."""
MISSING = {"subset": 5, "strangers": 3}
"""Of ten classes, those without unlabeled images, and those without labels."""
UNIFORM = 700
MIXTURE = "supervised+la+mixture"
TAUGHT = "mixtureteacher+la+mixture"
DASO: dict[str, Any] = {"dist_temperature": 0.3, "queue_batch_statistics": False}
SHORT: dict[str, Any] = {"schedule": "one-cycle", "ema_decay": 0.98}
SIDES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "patches, labels": (MIXTURE, {"mixture_weight": 0.0}, {"steps": 0}),
    "patches": (MIXTURE, {}, {"steps": 0}),
    "patches, mirrored": (MIXTURE, {"mirror": "both"}, {"steps": 0}),
    "supervised+la": ("supervised+la", {}, {"steps": 1000, **SHORT}),
    "supervised+la+mixture": (MIXTURE, {}, {"steps": 1000, **SHORT}),
    "mixtureteacher+la+mixture": (TAUGHT, {}, {"steps": 750, "batch": 32, **SHORT}),
    "fixmatch+la+daso": ("fixmatch+la+daso", DASO, {"steps": 1500, "batch": 16}),
    "fixmatch+la+daso, one cycle": (
        "fixmatch+la+daso",
        DASO,
        {"steps": 1500, "batch": 16, **SHORT},
    ),
    "fixmatch+daso": ("fixmatch+daso", DASO, {"steps": 1500, "batch": 16, **SHORT}),
    "fixmatch+la+mixture": ("fixmatch+la+mixture", {}, {"steps": 1500, "batch": 16}),
    **{
        name: (name, {}, {"steps": 1500, "batch": 16, **SHORT})
        for name in (
            "fixmatch",
            "fixmatch+la",
            "freematch+la",
            "softmatch+la",
            "debiaspl+la",
            "adello",
            "cdmad",
            "cossl",
        )
    },
    "acr": ("acr", {"estimate_period": 50}, {"steps": 1500, "batch": 16, **SHORT}),
    "simpro": ("simpro", {"prior_period": 50}, {"steps": 1500, "batch": 16, **SHORT}),
}
"""Method, hyper-parameters and training of each side; trainings take about as long as one another.
"""


@dataclass(frozen=True)
class Options:
    """Run the missing cells and append a row of each to the results file."""

    sources: tuple[str, ...] = ("fashion-mnist",)
    """fashion-mnist, cifar10, elpv."""
    shapes: tuple[str, ...] = (*SHAPES, *MISSING)
    labels: tuple[str, ...] = ("250-5",)
    """250-5, 50-1."""
    sides: tuple[str, ...] = tuple(SIDES)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    data: Path | None = None
    """Folder of the source's files."""
    network: str = "small"
    steps: int | None = None
    """Steps of the trainings (default: those of each side)."""
    results: Path = Path("results/unlabeled.csv")
    runs: Path = Path("runs/unlabeled")


def settings_of(options: Options) -> Iterator[tuple[int, str, str, str]]:
    """Yield seed, source, labels and shape of each setting; real imbalance has one shape."""
    for seed, name in itertools.product(options.seeds, options.sources):
        if name == "elpv":
            yield seed, name, "200-12", "as it is"
        else:
            for labels, shape in itertools.product(options.labels, options.shapes):
                yield seed, name, labels, shape


def without_classes(source: Source, shape: str, seed: int) -> Source:
    """Return a source with unlabeled images of its own, of which classes are missing."""
    random = np.random.default_rng(seed)
    missing = random.permutation(len(source.class_names))[: MISSING[shape]]
    strangers = missing if shape == "strangers" else missing[:0]
    assert source.test is not None
    train, test = source.train, source.test
    numbers = np.full(len(source.class_names), UNLABELED)
    known = np.setdiff1d(np.arange(len(numbers)), strangers)
    numbers[known] = np.arange(len(known))
    labeled, unlabeled = [], []
    for k in range(len(numbers)):
        rows = random.permutation(np.flatnonzero(train.labels == k))
        unlabeled.append(rows[: UNIFORM * (k not in missing or k in strangers)])
        labeled.append(rows[UNIFORM:] if k in known else rows[:0])

    def chosen(images: DecodedImages, rows: Indices) -> DecodedImages:
        rows = np.sort(rows)
        return DecodedImages(np.asarray(images.images)[rows], numbers[images.labels[rows]])

    return replace(
        source,
        class_names=tuple(source.class_names[k] for k in known),
        train=chosen(train, np.concatenate(labeled)),
        unlabeled=chosen(train, np.concatenate(unlabeled)),
        test=chosen(test, np.flatnonzero(np.isin(test.labels, known))),
    )


Opened = dict[tuple[str, int | None], Source]
"""Sources that were opened, by place and size."""


def open_setting(
    options: Options, setting: tuple[int, str, str, str], size: int | None, opened: Opened
) -> tuple[str, SplitOptions, Source]:
    """Return the place of a setting's images, how they are split, and the images."""
    seed, name, labels, shape = setting
    place, split = name, SplitOptions()
    if name == "elpv":
        place = str(write_elpv(options.runs / f"elpv-{seed}", seed))
    else:
        head, gamma = LABELS[labels]
        drawn = SHAPES.get(shape, {})
        split = SplitOptions(labeled_head=head, gamma_labeled=gamma, holdout=0, **drawn)
    if (place, size) not in opened:
        opened[place, size] = open_source(place, data=options.data, size=size)
    source = opened[place, size]
    return place, split, without_classes(source, shape, seed) if shape in MISSING else source


def train_cell(
    config: RunConfig, source: Source, folder: Path, results: Path, key: dict[str, str]
) -> None:
    """Train into *folder*, and append the row with the values of *key*."""
    train(config, source, folder)
    row = {**key, "date": time.strftime("%Y-%m-%d"), **result_row(read_run(folder))}
    append_row(results, row, key)
    print(
        f"{' '.join(key.values())}: {row['balanced_accuracy_last']:.1f} "
        f"({row['recall_few']:.1f}) in {row['seconds']} s",
        flush=True,
    )


def main(options: Options) -> None:
    torch.set_num_threads(1)
    opened: Opened = {}
    for setting, side in itertools.product(settings_of(options), options.sides):
        seed, name, labels, shape = setting
        method, values, changes = SIDES[side]
        steps = changes["steps"] if not changes["steps"] else options.steps or changes["steps"]
        key = {"labels": labels, "shape": shape, "side": side, "seed": str(seed)}
        key |= {"source": name, "steps": str(steps), "network": options.network}
        if has_row(options.results, key):
            continue
        size = SOLAR_SIDE if name == "elpv" and steps else None
        place, split, source = open_setting(options, setting, size, opened)
        training = TrainOptions(
            **{**changes, "steps": steps},
            network=options.network,
            precision="float32",
            evaluate_every=max(1, steps // 2),
            seed=seed,
            device="cpu",
        )
        data = None if options.data is None else str(options.data)
        config = RunConfig(
            place, method, data, size=size, split=split, method_options=values, train=training
        )
        folder = options.runs / "-".join(key.values()).replace(", ", "-").replace(" ", "-")
        train_cell(config, source, folder, options.results, key)


if __name__ == "__main__":
    main(tyro.cli(Options))
