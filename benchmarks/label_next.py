"""Does labelling what a report proposes help? On runs whose unlabelled images have a known truth.

    python benchmarks/label_next.py RUN...

Each way to choose asks for the labels of 25, 50 and 100 unlabelled images. A logistic regression on the run's
features then learns from the labelled images and these; told is what it gains on the test images, as a mean over the
runs and the three numbers: balanced accuracy, and recall of the rarest third.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

from daso.data.store import Pool, TrainingData
from daso.files import read_json
from daso.report.html.folder import load_run
from daso.train.candidates import rank_to_label
from daso.train.config import RunConfig
from daso.train.model import Model, load_model
from daso.train.prepare import prepare

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
BUDGETS = (25, 50, 100)
RANDOM_DRAWS = 4


def unit(features: Floats) -> Floats:
    scaled: Floats = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-8)
    return scaled


def encode(model: Model, pool: Pool) -> Floats:
    with torch.no_grad():
        parts = [model.network(pool.images[at : at + 1000]) for at in range(0, len(pool), 1000)]
    return torch.cat(parts).double().numpy()


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: Floats = powers / powers.sum(1, keepdims=True)
    return shares


def beliefs(folder: Path, model: Model, features: Floats) -> tuple[Floats, Floats]:
    """Return the probabilities of the classifier and of the similarity to the prototypes of the run."""
    if load_run(folder).beliefs.get("prototypes") != "method":
        raise SystemExit(f"{folder}: its method has no prototypes")
    checkpoint = max((folder / "checkpoints").glob("*.safetensors"))
    with safe_open(checkpoint, framework="numpy") as file:
        prototypes = file.get_tensor("method.refine.queue.prototypes").astype(np.float64)
    with torch.no_grad():
        logits = model.network.classify(torch.from_numpy(features).float(), model.network.output)
    return softmax(logits.double().numpy()), softmax(unit(features) @ unit(prototypes).T / 0.05)


def gains(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Return what each way to choose gains, in points, for each number of labels."""
    model = load_model(folder, torch.device("cpu"), print)
    data: TrainingData = prepare(RunConfig.from_dict(read_json(folder / "config.json"), str(folder))).data
    assert data.unlabeled is not None
    assert data.test is not None
    truth, labels = data.unlabeled.labels.numpy(), data.labeled.labels.numpy()
    pool, labeled, test = (encode(model, part) for part in (data.unlabeled, data.labeled, data.test))
    linear, semantic = beliefs(folder, model, pool)
    few = np.argsort(-data.class_counts, kind="stable")[-max(1, len(data.class_counts) // 3) :]

    def measure(chosen: Indices) -> tuple[float, float]:
        features, targets = np.r_[labeled, pool[chosen]], np.r_[labels, truth[chosen]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            regression = LogisticRegression(C=10, max_iter=200).fit(unit(features), targets)
        hits = regression.predict(unit(test)) == data.test.labels.numpy()  # type: ignore[union-attr]
        recall = np.array([hits[data.test.labels.numpy() == k].mean() for k in range(len(data.class_counts))])  # type: ignore[union-attr]
        return 100 * float(recall.mean()), 100 * float(recall[few].mean())

    start = measure(np.zeros(0, dtype=np.int64))
    ordered = -np.sort(-linear, axis=1)
    least_margin = np.argsort(ordered[:, 0] - ordered[:, 1], kind="stable")
    ways: dict[str, Callable[[int, int], Indices]] = {
        "at random": lambda n, draw: np.random.default_rng(draw).choice(len(truth), n, replace=False),
        "least margin of the classifier": lambda n, _: least_margin[:n],
        "the report's list": lambda n, _: rank_to_label(linear, semantic, pool, data.class_counts, n).place,
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for name, way in ways.items():
        draws = range(RANDOM_DRAWS if name == "at random" else 1)
        for budget in BUDGETS:
            means = np.mean([measure(way(budget, draw)) for draw in draws], axis=0) - start
            found.setdefault(name, []).append((float(means[0]), float(means[1])))
    return found


def main() -> None:
    """Print a row per way to choose."""
    results = [gains(Path(name)) for name in sys.argv[1:]]
    if not results:
        raise SystemExit(__doc__)
    print("| chosen | balanced accuracy | recall of the rarest third |\n|---|---|---|")
    for name in results[0]:
        means = np.mean([pair for result in results for pair in result[name]], axis=0)
        print(f"| {name} | {means[0]:+.1f} | {means[1]:+.1f} |")


if __name__ == "__main__":
    main()
