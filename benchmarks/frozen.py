"""Few long-tailed labels on the embeddings of a frozen encoder, against training the same encoder from nothing.

    python benchmarks/frozen.py --seeds 0 1 2            # rows into results/frozen.csv
    python benchmarks/frozen.py --throughput             # images a second of encoders of usual sizes, random weights

Stands in for weights from the hub with an encoder trained here, on classes that the task does not have: on the 30,000
labelled T-shirts, pullovers, coats, sandals and sneakers of Fashion-MNIST. The task is the other five classes (trouser,
dress, shirt, bag, boot), long-tailed. A cell that has its row is not run again. Beside the methods of daso: logistic
regression on the plain embeddings of the labelled images (scikit-learn, classes weighted).
"""

from __future__ import annotations

import csv
import importlib
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from sklearn.linear_model import LogisticRegression

from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.source import Images, Source
from daso.evaluate.metrics import evaluate_logits
from daso.files import read_json
from daso.nets.network import Network
from daso.nets.pretrained import TransformersEncoder
from daso.train.config import RunConfig
from daso.train.embed import EmbeddedData
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare
from daso.train.run import train_run

UPSTREAM, TASK = (0, 2, 4, 5, 7), (1, 3, 6, 8, 9)
SPLIT = SplitOptions(labeled_head=100, unlabeled_head=2000, gamma_labeled=50, gamma_unlabeled=50, holdout=0)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "fixmatch": ("fixmatch", {}),
    "fixmatch+daso": ("fixmatch+daso", {}),
    "fixmatch+daso, plain only": ("fixmatch+daso", {"weak_versions": 0, "strong_versions": 0}),
    "fixmatch+daso, 2 + 8": ("fixmatch+daso", {"weak_versions": 2, "strong_versions": 8}),
    "fixmatch+daso, linear": ("fixmatch+daso", {"embedding_network": "linear"}),
    "fixmatch+daso, no noise": ("fixmatch+daso", {}),
}
"""What is trained on embeddings, and options of its training."""
SCRATCH = "fixmatch+daso, from nothing"
REGRESSION = "logistic regression"


@dataclass(frozen=True)
class Frozen:
    """Run the missing cells and append a row of each to the results file."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Which seeds of the split."""
    variants: tuple[str, ...] = (*VARIANTS, SCRATCH, REGRESSION)
    """Which cells."""
    data: Path | None = None
    """Where the files of Fashion-MNIST are."""
    out: Path = Path("runs/frozen")
    """Folder of the encoder, the runs and the embeddings."""
    results: Path = Path("results/frozen.csv")
    """File of rows."""
    network: str = "small-16"
    """Encoder."""
    upstream_steps: int = 600
    """Steps that the encoder is trained for."""
    steps: int = 800
    """Steps on embeddings."""
    scratch_steps: int = 200
    """Steps of the encoder from nothing."""
    throughput: bool = False
    """Measure images a second instead."""


def classes_of(source: Source, classes: tuple[int, ...]) -> Source:
    """Return the images of some classes, numbered anew."""

    def pick(pool: Images | None) -> Images | None:
        if pool is None:
            return None
        kept = np.isin(pool.labels, classes)
        labels = np.searchsorted(np.array(classes), pool.labels[kept]).astype(np.int64)
        return Images(pool.images[kept], labels)

    train = pick(source.train)
    assert train is not None
    names = tuple(source.class_names[k] for k in classes)
    return replace(
        source, class_names=names, train=train, test=pick(source.test), unlabeled=None, validation=None
    )


def train_encoder(options: Frozen, source: Source) -> Path:
    """Train the encoder on all labels of the classes that the task does not have; return its run folder."""
    folder = options.out / "encoder"
    if not (folder / "summary.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        train = TrainOptions(
            steps=options.upstream_steps,
            network=options.network,
            evaluate_every=600,
            schedule="cosine",
            device="cpu",
        )
        split = SplitOptions(holdout=0)
        prepared = prepare(RunConfig("fashion-mnist", "supervised", split=split, train=train), source)
        rows = list(train_run(prepared, folder))
        print(f"encoder: {rows[-1]['test']['balanced_accuracy']:.3f} on its own classes", file=sys.stderr)
    return folder


def run_cell(options: Frozen, source: Source, encoder: Path, variant: str, seed: int) -> dict[str, object]:
    """Train one variant and return its row."""
    method, changes = VARIANTS.get(variant, ("fixmatch+daso", {}))
    train = TrainOptions(steps=options.steps, seed=seed, device="cpu", evaluate_every=200)
    if variant == SCRATCH:
        train = replace(train, network=options.network, steps=options.scratch_steps)
    else:
        folder = str(options.out / "embeddings")
        train = replace(train, network=str(encoder), freeze=True, embedding_folder=folder, **changes)
    warmup = {"warmup_steps": train.steps // 5} if "daso" in method else {}
    config = RunConfig("fashion-mnist", method, split=SPLIT, train=train, method_options=warmup)
    if variant.endswith("no noise"):
        quiet = replace(config.vectors, weak_noise=0.0, strong_noise=0.0, strong_mask=0.0, strong_mix=0.0)
        config = replace(config, vectors=quiet)
    started = time.perf_counter()
    prepared = prepare(config, source)
    embedding = time.perf_counter() - started
    row: dict[str, object] = {
        "variant": variant,
        "seed": seed,
        "network": options.network,
        "steps": train.steps,
    }
    if isinstance(prepared.data, EmbeddedData):
        row |= {"embedded": prepared.data.computed, "preparation_seconds": round(embedding, 1)}
    if variant == REGRESSION:
        return row | regress(prepared)
    with tempfile.TemporaryDirectory() as place:
        rows = list(train_run(prepared, Path(place) / "run"))
        row["seconds"] = read_json(Path(place) / "run" / "summary.json")["seconds"]
    last = [r["test"] for r in rows if r["event"] == "evaluate"][-5:]
    for name in ("balanced_accuracy", "recall_few"):
        row[name] = round(100 * statistics.median(test[name] for test in last), 2)
    adjusted = statistics.median(test["logit_adjusted"]["balanced_accuracy"] for test in last)
    row["balanced_accuracy_logit_adjusted"] = round(100 * adjusted, 2)
    row["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def regress(prepared: Prepared) -> dict[str, object]:
    """Fit logistic regression on the plain embeddings of the labelled images."""
    data = prepared.data
    assert data.test is not None
    mean, std = np.array(data.mean), np.array(data.std)
    train, test = ((pool.images[:, 0].numpy() - mean) / std for pool in (data.labeled, data.test))
    started = time.perf_counter()
    model = LogisticRegression(max_iter=2000, class_weight="balanced").fit(train, data.labeled.labels.numpy())
    logits = model.decision_function(test)
    found = evaluate_logits(logits, data.test.labels.numpy(), data.class_counts)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "balanced_accuracy": round(100 * found["balanced_accuracy"], 2),
        "recall_few": round(100 * found["recall_few"], 2),
    }


COLUMNS = (
    *("variant", "seed", "network", "steps"),
    *("balanced_accuracy", "balanced_accuracy_logit_adjusted", "recall_few"),
    *("seconds", "preparation_seconds", "embedded", "memory_mb"),
)


def campaign(options: Frozen) -> None:
    """Run the missing cells."""
    whole = open_source("fashion-mnist", data=options.data)
    encoder = train_encoder(options, classes_of(whole, UPSTREAM))
    task = classes_of(whole, TASK)
    done = set()
    if options.results.exists():
        with options.results.open(newline="") as file:
            done = {(row["variant"], int(row["seed"])) for row in csv.DictReader(file)}
    for seed in options.seeds:
        for variant in options.variants:
            if (variant, seed) in done:
                continue
            row = run_cell(options, task, encoder, variant, seed)
            new = not options.results.exists()
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(row, file=sys.stderr)


def throughput() -> None:
    """Print images a second of encoders of usual sizes in evaluation; their weights are random."""
    transformers: Any = importlib.import_module("transformers")
    small: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    cases = [
        ("DINOv2 small, 224", transformers.Dinov2Config(**small, image_size=518, patch_size=14), 224),
        ("DINOv2 small, 112", transformers.Dinov2Config(**small, image_size=518, patch_size=14), 112),
        ("ConvNeXt tiny, 224", transformers.ConvNextConfig(), 224),
        ("ResNet-50, 224", transformers.ResNetConfig(), 224),
    ]
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    threads = torch.get_num_threads()
    for name, config, side in cases:
        encoder = TransformersEncoder(transformers.AutoModel.from_config(config), side)
        for precision in ("float32", "bfloat16"):
            network = Network(encoder, {}, [0.5] * 3, [0.25] * 3, precision, side).eval()
            times = []
            with torch.no_grad():
                for _ in range(4):
                    started = time.perf_counter()
                    network(images)
                    times.append(time.perf_counter() - started)
            rate = len(images) / statistics.median(times[1:])
            print(
                f"{name}, {precision}: {rate:.1f} images a second, {threads} thread(s), load {os.getloadavg()[0]:.0f}"
            )


if __name__ == "__main__":
    chosen = tyro.cli(Frozen)
    throughput() if chosen.throughput else campaign(chosen)
