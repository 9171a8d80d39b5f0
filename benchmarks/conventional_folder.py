"""FixMatch + DASO on image folders by the conventional pipeline, as a command of its own.

    python benchmarks/conventional_folder.py FOLDER OUT --batch 16 --steps 6000

FOLDER has ``labeled/<class>/``, ``unlabeled/`` and ``test/<class>/``. Images are opened with Pillow
when a loader asks for them, as training scripts do; test images are kept once they were decoded.
OUT gets ``model.pt``, and in ``metrics.jsonl`` a row of each evaluation, after the model. It sets
glibc's allocator as our training does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from conventional import (
    Conventional,
    ConventionalDASO,
    ImageBatch,
    Images,
    Normalization,
    load_batches,
)
from PIL import Image
from torch import Tensor, nn

from daso.evaluate.metrics import evaluate_logits
from daso.files import append_line
from daso.nets.network import build_encoder
from daso.train.allocator import keep_freed_memory

DIST_TEMPERATURE = 0.3
"""The paper's where nobody knows how the unlabeled images are distributed."""
WORKERS = (0, 1, 2)
TRIALS, TRIAL_STEPS = 4, 10
"""Turns of each number of workers, the first of which is not counted, and their steps."""


@dataclass(frozen=True)
class Options:
    """Train and evaluate."""

    folder: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    network: str = "small"
    batch: int = 16
    """Labeled images of a step, with twice as many unlabeled ones."""
    steps: int = 6_000
    evaluate_every: int = 200
    workers: int = 0
    """Data-loading processes of each of two loaders."""
    try_workers: bool = False
    """Only print the number of workers with which steps are fastest: 0, 1 or 2."""
    seed: int = 0


class Files:
    """Image files of one size, all gray or all in color, opened when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        with Image.open(paths[0]) as image:
            self.mode = "L" if image.mode == "L" else "RGB"
        self.shape = (len(paths), *self[0].shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.paths[index]) as image:
            return np.asarray(image.convert(self.mode))

    def normalization(self) -> Normalization:
        """Return the normalization by the mean and standard deviation of each channel."""
        images = np.stack([self[index] for index in range(len(self))]) / 255
        pixels = images.reshape(-1, len(self.mode))
        return Normalization(tuple(pixels.mean(0).tolist()), tuple(pixels.std(0).tolist()))


def by_class(folder: Path) -> tuple[list[Path], Tensor, int]:
    """Return the files of all classes, their labels (N,), and the number of classes."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(path.iterdir()) for path in classes]
    labels = [label for label, paths in enumerate(files) for _ in paths]
    return [path for paths in files for path in paths], torch.tensor(labels), len(classes)


def seconds(pipeline: Conventional, batches: Iterator[ImageBatch]) -> float:
    started = time.perf_counter()
    for _ in range(TRIAL_STEPS):
        pipeline.advance(next(batches))
    return time.perf_counter() - started


@torch.no_grad()
def evaluate(pipeline: Conventional, images: Tensor, labels: Tensor, counts: Tensor) -> Any:
    model = pipeline.average.eval()
    logits = [model["classifier"](model["encoder"](part)) for part in torch.split(images, 500)]
    model.train()
    return evaluate_logits(torch.cat(logits).numpy(), labels.numpy(), counts.numpy())


def main(options: Options) -> None:
    keep_freed_memory()
    torch.manual_seed(options.seed)
    paths, labels, classes = by_class(options.folder / "labeled")
    files = Files(paths)
    unlabeled = Files(sorted((options.folder / "unlabeled").rglob("*.png")))
    side = files.shape[1]
    encoder = build_encoder(options.network, len(files.mode), side)
    daso = ConventionalDASO(
        classes, dist_temperature=DIST_TEMPERATURE, warmup_steps=options.steps // 5
    )
    pipeline = Conventional(encoder, nn.Linear(encoder.dim, classes), daso)
    normalization = files.normalization()
    views: Any = normalization, side // 8, side // 2

    def load(workers: int) -> Iterator[ImageBatch]:
        pools = Images(files, labels, *views), Images(unlabeled, None, *views)  # type: ignore[arg-type]
        return load_batches(*pools, options.batch, 2, workers)

    if options.try_workers:
        sides = {workers: load(workers) for workers in WORKERS}
        taken = {workers: list[float]() for workers in WORKERS}
        for _ in range(TRIALS):
            for workers, side in sides.items():
                taken[workers].append(seconds(pipeline, side))
        print(min(WORKERS, key=lambda workers: statistics.median(taken[workers][1:])))
        return
    options.out.mkdir(parents=True)
    batches = load(options.workers)
    tested, truth, _ = by_class(options.folder / "test")
    test: Tensor | None = None
    for step in range(1, options.steps + 1):
        pipeline.advance(next(batches))
        if step % options.evaluate_every == 0 or step == options.steps:
            if test is None:
                test = torch.stack([normalization(image) for image in Files(tested)])  # type: ignore[attr-defined]
            counts = labels.bincount(minlength=classes)
            metrics = evaluate(pipeline, test, truth, counts)
            torch.save(pipeline.average.state_dict(), options.out / "model.pt")
            row = {"event": "evaluate", "step": step, "test": metrics}
            append_line(options.out / "metrics.jsonl", row)


if __name__ == "__main__":
    main(tyro.cli(Options))
