"""Measure whether labeling the images that a report proposes helps, on runs with a known truth.

    for seed in 0 1 2; do
        daso train fashion-mnist --labeled-head 100 --unlabeled-head 2000 --gamma-labeled 50 \\
            --gamma-unlabeled 50 --network small --steps 600 --method fixmatch+daso --seed $seed \\
            --out runs/label-next-$seed
    done
    python benchmarks/label_next.py runs/label-next-* --csv results/label-next.csv

Each way to choose asks for the labels of 25, 50 and 100 unlabeled images. A logistic regression on
the run's features then learns from the labeled images and these. Its gains on the test images are
printed as means over runs and numbers of labels. The CSV file gets a row for each of them.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from common import print_heading, provenance
from safetensors import safe_open
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from daso.data.images.pool import Pool
from daso.data.training_data import TrainingData
from daso.report.html.run import load_run
from daso.report.results import append_row
from daso.report.runs import read_run
from daso.train.beliefs.label_next import rank_to_label
from daso.train.config import RunConfig
from daso.train.model import Model, load_model
from daso.train.prepare import prepare

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
BUDGETS = (25, 50, 100)
RANDOM_DRAWS = 4


@dataclass(frozen=True)
class LabelNext:
    """Measure ways to choose what to label next."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs of a method with prototypes."""
    csv: Path | None = None
    """File to append rows to."""


def unit(features: Floats) -> Floats:
    scaled: Floats = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-8)
    return scaled


def encode(model: Model, pool: Pool) -> Floats:
    with torch.no_grad():
        parts = [model.network(pool.images[at : at + 1000]) for at in range(0, len(pool), 1000)]
    return torch.cat(parts).double().numpy()


def beliefs(folder: Path, model: Model, features: Floats) -> tuple[Floats, Floats]:
    """Return the probabilities of a run's classifier and of its prototypes."""
    if load_run(folder).beliefs.get("prototypes") != "method":
        raise SystemExit(f"{folder}: its method has no prototypes")
    checkpoint = max((folder / "checkpoints").glob("*.safetensors"))
    with safe_open(checkpoint, framework="numpy") as file:
        prototypes = file.get_tensor("method.refine.queue.prototypes").astype(np.float64)
    with torch.no_grad():
        logits = model.network.classify(torch.from_numpy(features).float(), model.network.output)
    cosines = unit(features) @ unit(prototypes).T
    return softmax(logits.double().numpy(), axis=1), softmax(cosines / 0.05, axis=1)


def measure(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row, numbers in per cent, for each way to choose and number of labels."""
    model = load_model(folder, torch.device("cpu"), print)
    config = RunConfig.read(folder)
    data: TrainingData = prepare(config).data
    assert data.unlabeled is not None
    assert data.test is not None
    truth, labels = data.unlabeled.labels.numpy(), data.labeled.labels.numpy()
    tested = data.test.labels.numpy()
    pool, labeled, test = (
        encode(model, part) for part in (data.unlabeled, data.labeled, data.test)
    )
    linear, semantic = beliefs(folder, model, pool)
    few = np.argsort(-data.class_counts, kind="stable")[-max(1, len(data.class_counts) // 3) :]

    def learn(chosen: Indices) -> Floats:
        features, targets = np.r_[labeled, pool[chosen]], np.r_[labels, truth[chosen]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            regression = LogisticRegression(C=10, max_iter=200).fit(unit(features), targets)
        hits = regression.predict(unit(test)) == tested
        recall = np.array([hits[tested == k].mean() for k in range(len(data.class_counts))])
        return 100 * np.array([recall.mean(), recall[few].mean()])

    ordered = -np.sort(-linear, axis=1)
    least_margin = np.argsort(ordered[:, 0] - ordered[:, 1], kind="stable")
    ways: dict[str, Callable[[int, int], Indices]] = {
        "at random": lambda n, draw: np.random.default_rng(draw).choice(
            len(truth), n, replace=False
        ),
        "least margin of the classifier": lambda n, _: least_margin[:n],
        "the report's list": lambda n, _: (
            rank_to_label(linear, semantic, pool, data.class_counts, n).place
        ),
    }
    run = read_run(folder)
    before = learn(np.zeros(0, dtype=np.int64))
    for name, way in ways.items():
        draws = RANDOM_DRAWS if name == "at random" else 1
        for budget in BUDGETS:
            started = time.perf_counter()
            after = np.mean([learn(way(budget, draw)) for draw in range(draws)], axis=0)
            yield {
                "source": config.source,
                "method": config.method,
                "network": config.train.network,
                "steps": config.train.steps,
                "seed": config.train.seed,
                "labeled": len(labels),
                "unlabeled": len(truth),
                "chosen": name,
                "added": budget,
                "draws": draws,
                "balanced_accuracy_before": round(float(before[0]), 2),
                "balanced_accuracy": round(float(after[0]), 2),
                "recall_few_before": round(float(before[1]), 2),
                "recall_few": round(float(after[1]), 2),
                "seconds": round(time.perf_counter() - started, 1),
                "split": run.summary["split_fingerprint"],
                "run_command": run.environment["command"],
                "run_commit": run.environment["commit"],
            }


def main(options: LabelNext) -> None:
    gains: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for folder in options.runs:
        for row in measure(folder):
            pair = [
                row[name] - row[f"{name}_before"] for name in ("balanced_accuracy", "recall_few")
            ]
            gains[row["chosen"]].append((pair[0], pair[1]))
            if options.csv is not None:
                append_row(options.csv, {**row, **provenance()})
    print_heading("chosen", "balanced accuracy", "recall of the rarest third")
    for name, found in gains.items():
        means = np.mean(found, axis=0)
        print(f"| {name} | {means[0]:+.1f} | {means[1]:+.1f} |")


if __name__ == "__main__":
    main(tyro.cli(LabelNext))
