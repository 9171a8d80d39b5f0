"""The quality of a run's probabilities on test images: calibration and priors.

    python benchmarks/probabilities.py --source digits --seeds 0 1 2 --csv results/probabilities.csv

Trains a small network on long-tailed labels, as runs do, calibrates it on its hold-out, and
measures on balanced test images: negative log-likelihood and calibration error with the temperature
and without; the same for temperatures from fewer held-out images (mean over draws, and how often
they are worse than none); and the balanced accuracy by the prior that the probabilities are shifted
to. Prints a row of JSON for each training.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tyro
from common import provenance
from scipy.special import softmax

from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.evaluate.calibration import Calibration, calibrate, fit_temperature
from daso.evaluate.metrics import calibration_error, confusion_matrix, recall_precision
from daso.evaluate.predict import predict_logits
from daso.evaluate.prior import estimate_prior, shift
from daso.export.facts import ModelFacts
from daso.report.results import append_row
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import train_run

Array = npt.NDArray[Any]
SPLITS = {
    "digits": SplitOptions(
        labeled_head=20, unlabeled_head=60, gamma_labeled=10, gamma_unlabeled=1, holdout=300
    ),
    "fashion-mnist": SplitOptions(
        labeled_head=200, unlabeled_head=1000, gamma_labeled=50, gamma_unlabeled=1, holdout=2000
    ),
}
FEWER = (20, 30, 50, 100, 200)
DRAWS = 60


@dataclass(frozen=True)
class Options:
    """What is trained."""

    source: str = "digits"
    method: str = "supervised"
    seeds: tuple[int, ...] = (0,)
    steps: int = 600
    csv: Path | None = None
    """File to append rows to."""


def loss(logits: Array, labels: Array, temperature: float) -> float:
    probs = softmax(logits / temperature, axis=1)
    return float(-np.log(probs[np.arange(len(labels)), labels]).mean())


def balanced_accuracy(probs: Array, labels: Array) -> float:
    recall, _ = recall_precision(confusion_matrix(labels, probs.argmax(1), probs.shape[1]))
    return float(np.nanmean(recall))


def temperatures_from_fewer(
    held: Array, held_labels: Array, logits: Array, labels: Array
) -> dict[str, Any]:
    """Return the mean test loss and the share of draws worse than none, by images."""
    random, found = np.random.default_rng(0), {}
    none = loss(logits, labels, 1)
    for count in (n for n in FEWER if n <= len(held)):
        draws = [random.choice(len(held), count, replace=False) for _ in range(DRAWS)]
        losses = [loss(logits, labels, fit_temperature(held[i], held_labels[i])) for i in draws]
        worse = float(np.mean([value > none + 1e-3 for value in losses]))
        found[str(count)] = {"loss": round(float(np.mean(losses)), 4), "worse": round(worse, 2)}
    return found


def by_prior(probs: Array, labels: Array, facts: ModelFacts) -> dict[str, Any]:
    """Return balanced accuracy by prior, and the sum of the errors of the estimated shares."""
    truth = np.bincount(labels, minlength=len(facts.class_names)) / len(labels)
    by_confusion, how = facts.estimate_distribution(lambda: [probs])
    priors = {"none": facts.prior, "labeled": facts.labeled, "truth": truth, how: by_confusion}
    priors["expectation-maximisation"] = estimate_prior(lambda: [probs], facts.prior)
    rows = {}
    for name, prior in priors.items():
        accuracy = balanced_accuracy(shift(probs, facts.prior, prior), labels)
        error = round(float(np.abs(prior - truth).sum()), 3)
        rows[name] = {"balanced_accuracy": round(accuracy, 4), "error": error}
    return rows


def measure(options: Options, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    source = open_source(options.source)
    train = TrainOptions(steps=options.steps, batch=32, network="small-16", device="cpu", seed=seed)
    config = RunConfig(options.source, options.method, split=SPLITS[options.source], train=train)
    prepared = prepare(config, source)
    with tempfile.TemporaryDirectory() as folder:
        for _ in train_run(prepared, Path(folder) / "run"):
            pass
    data, network = prepared.data, prepared.training.average.network
    assert data.holdout is not None
    assert data.test is not None
    (held, held_labels), (logits, labels) = (
        (predict_logits(network, pool.images).double().numpy(), pool.labels.numpy())
        for pool in (data.holdout, data.test)
    )
    calibration: Calibration = calibrate(held, held_labels, options.steps)
    counts = tuple(data.class_counts.tolist())
    balanced = tuple(Recipe.parse(options.method).balanced_by())
    about = (calibration.temperature, None, balanced, options.method)
    facts = ModelFacts(
        data.class_names, counts, data.shape, *about, confusion=calibration.confusion
    )
    probs = softmax(logits / calibration.temperature, axis=1)
    return {
        "source": options.source,
        "method": options.method,
        "seed": seed,
        "steps": options.steps,
        "batch": train.batch,
        "network": train.network,
        "labeled": sum(counts),
        "held_out": len(held_labels),
        "test": len(labels),
        "temperature": round(calibration.temperature, 3),
        "loss_before": round(loss(logits, labels, 1), 4),
        "loss_after": round(loss(logits, labels, calibration.temperature), 4),
        "error_before": round(calibration_error(softmax(logits, axis=1), labels), 4),
        "error_after": round(calibration_error(probs, labels), 4),
        "seconds": round(time.perf_counter() - started),
        "fewer": temperatures_from_fewer(held, held_labels, logits, labels),
        "priors": by_prior(probs, labels, facts),
    }


def main() -> None:
    options = tyro.cli(Options)
    for seed in options.seeds:
        found = measure(options, seed)
        print(json.dumps(found), flush=True)
        if options.csv is not None:
            found |= {n: json.dumps(value) for n, value in found.items() if isinstance(value, dict)}
            append_row(options.csv, {**found, **provenance()})


if __name__ == "__main__":
    main()
