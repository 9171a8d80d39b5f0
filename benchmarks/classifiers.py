"""scikit-learn's classifiers on the images of ``unlabeled.py``: on pixels, and on patch features.

    python benchmarks/classifiers.py --stage develop --sources cifar10 --data FOLDER
    python benchmarks/classifiers.py --sources cifar10 --data FOLDER
    python benchmarks/classifiers.py --stage table

Patch features are those that the mixture readout classifies, after its projection. The baselines
see the splits of ``unlabeled.py``. ``develop`` measures every candidate on further seeds, by test
labels that a user would not have; ``test`` takes the best of them for each line. A cell that has
its row in the results file is not run again.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from common import (
    ahead,
    best_options,
    grid,
    grouped,
    mean_and_deviation,
    print_heading,
    provenance,
    read_csv,
)
from embeddings import Array, Split, label_spreading, logistic, measure, self_training
from sklearn.preprocessing import StandardScaler
from unlabeled import MIXTURE, Opened, Options, open_setting, settings_of

from daso.data.images.pool import Pool
from daso.evaluate.predict import represent_in_batches
from daso.report.results import append_row, has_row
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare

Stage = Literal["develop", "test", "table"]
DEVELOPMENT_SEEDS = (100, 101)


STRENGTHS = {"pixels": (1e-5, 1e-4, 1e-3), "patches": (1e-3, 1e-2, 1e-1)}
"""C of logistic regression."""
CANDIDATES: dict[str, tuple[Callable[..., Any], Callable[[str], list[dict[str, Any]]]]] = {
    "logistic": (logistic, lambda of: grid(C=STRENGTHS[of], weight=("balanced",))),
    "self-training": (
        self_training,
        lambda of: grid(C=STRENGTHS[of][1:], weight=("balanced",), threshold=(0.6, 0.8)),
    ),
    "label-spreading": (
        label_spreading,
        lambda _: grid(n_neighbors=(5, 15), alpha=(0.2,), unit_length=(False, True)),
    ),
}


@dataclass(frozen=True)
class Classifiers:
    """Run the missing cells and append a row of each to the results file, or print them."""

    stage: Stage = "test"
    sources: tuple[str, ...] = ("fashion-mnist",)
    shapes: tuple[str, ...] = ("consistent", "uniform", "reversed", "middle")
    seeds: tuple[int, ...] = (0, 1, 2)
    features: tuple[str, ...] = ("patches", "pixels")
    data: Path | None = None
    """Folder of the source's files."""
    results: Path = Path("results/classifiers.csv")
    others: Path = Path("results/unlabeled.csv")
    """Rows of daso, for the table."""
    runs: Path = Path("runs/unlabeled")


def features_of(prepared: Prepared, kind: str) -> Split:
    """Return features of the labeled, unlabeled and test images."""
    data, network = prepared.data, prepared.training.average.network
    assert data.unlabeled is not None
    assert data.test is not None
    if kind == "patches":
        assert prepared.readout is not None
        prepared.readout.start(network)

    def rows(pool: Pool) -> Array:
        if kind == "patches":
            return torch.cat(list(represent_in_batches(network, pool.images))).numpy()
        return np.asarray(pool.images).reshape(len(pool), -1).astype(np.float32)

    fit = np.concatenate([rows(data.labeled), rows(data.unlabeled)])
    measured = rows(data.test)
    if kind == "pixels":
        scaler = StandardScaler().fit(fit)
        fit, measured = scaler.transform(fit), scaler.transform(measured)
    labels = np.concatenate([data.labeled.labels.numpy(), np.full(len(data.unlabeled), -1)])
    return Split(fit, labels, measured, data.test.labels.numpy(), data.class_counts)


def run(options: Classifiers) -> None:
    torch.set_num_threads(1)
    about, opened = provenance(threads=1), Opened()
    seeds = DEVELOPMENT_SEEDS if options.stage == "develop" else options.seeds
    cells = Options(options.sources, options.shapes, seeds=seeds, data=options.data)
    for setting in settings_of(cells):
        seed, source, _, shape = setting
        features: dict[str, Split] = {}
        for kind, name in itertools.product(options.features, CANDIDATES):
            make, candidates = CANDIDATES[name]
            line = {"source": source, "shape": shape, "features": kind, "classifier": name}
            if options.stage == "develop":
                values = candidates(kind)
            else:
                values = [best_options(read_csv(options.results), {**line, "stage": "develop"})]
            for chosen in values:
                key = {"stage": options.stage, **line, "seed": str(seed)}
                key["options"] = json.dumps(chosen)
                if has_row(options.results, key):
                    continue
                start = time.perf_counter()
                if kind not in features:
                    place, split, images = open_setting(cells, setting, None, opened)
                    train = TrainOptions(0, network="small", seed=seed, device="cpu")
                    data = None if options.data is None else str(options.data)
                    config = RunConfig(place, MIXTURE, data, split=split, train=train)
                    features[kind] = features_of(prepare(config, images), kind)
                prepared = round(time.perf_counter() - start, 1)
                parts = features[kind]
                numbers = measure(make(**chosen), parts, parts.fit_labels)
                row = {**key, "preparation_seconds": prepared, **numbers, **about}
                append_row(options.results, row, key)
                print(*key.values(), numbers["balanced_accuracy"], numbers["seconds"], flush=True)


def table(options: Classifiers) -> None:
    """Print the best candidates beside the mixture."""
    mixture = {"side": "patches", "labels": "250-5"}

    def setting(row: dict[str, str]) -> tuple[str, str]:
        return row["source"], row["shape"]

    tested = (row for row in read_csv(options.results) if row["stage"] == "test")
    found = grouped(tested, setting, lambda row: f"{row['features']}, {row['classifier']}")
    ours = (row for row in read_csv(options.others) if mixture.items() <= row.items())
    rivals = grouped(ours, setting, lambda row: row["side"])
    balanced_few = "balanced (rarest third)"
    print_heading("images", "unlabeled", "classifier", "seeds", balanced_few, "mixture ahead by")
    for (source, shape), classifiers in found.items():
        for name, rows in classifiers.items():
            balanced, few = (
                mean_and_deviation([float(row[column]) for row in rows.values()])
                for column in ("balanced_accuracy", "recall_few")
            )
            wins = ahead(rivals[source, shape]["patches"], rows)
            print(f"| {source} | {shape} | {name} | {len(rows)} | {balanced} ({few}) | {wins} |")


if __name__ == "__main__":
    arguments = tyro.cli(Classifiers)
    table(arguments) if arguments.stage == "table" else run(arguments)
