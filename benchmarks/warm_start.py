"""Whether a training on more labels should start from the weights of the last one.

    python benchmarks/warm_start.py --source cifar10 --data FOLDER --seeds 100 101

Each seed is trained on 250 to 5 labels of a class, then on 250 to 10 (some 110 more, of the rare
classes, as labeling adds them): from random weights, and from those of the first training, in as
many steps and in fewer. Unlabeled images are uniform; the method is the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from unlabeled import MIXTURE, SHAPES, SHORT, train_cell

from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.report.results import has_row
from daso.train.config import RunConfig
from daso.train.options import TrainOptions


@dataclass(frozen=True)
class Options:
    """Run the missing cells and append a row of each to the results file."""

    source: str = "fashion-mnist"
    seeds: tuple[int, ...] = (100, 101, 102)
    data: Path | None = None
    """Folder of the source's files."""
    steps: int = 1000
    results: Path = Path("results/warm_start.csv")
    runs: Path = Path("runs/warm_start")


def main(options: Options) -> None:
    torch.set_num_threads(1)
    source = open_source(options.source, data=options.data)
    data = None if options.data is None else str(options.data)
    for seed in options.seeds:
        first = options.runs / f"{options.source}-{seed}-before-{options.steps}"
        weights = str(first / "checkpoints" / f"step-{options.steps:09}.safetensors")
        fewer = options.steps * 3 // 10
        for start, steps, gamma in (
            ("before", options.steps, 50.0),
            ("random", options.steps, 25.0),
            ("last", options.steps, 25.0),
            ("random", fewer, 25.0),
            ("last", fewer, 25.0),
        ):
            key = {"source": options.source, "seed": str(seed), "start": start, "steps": str(steps)}
            if has_row(options.results, key):
                continue
            training = TrainOptions(
                steps=steps,
                network="small",
                weights=weights if start == "last" else None,
                precision="float32",
                evaluate_every=steps,
                seed=seed,
                device="cpu",
                **SHORT,
            )
            split = SplitOptions(
                labeled_head=250, gamma_labeled=gamma, holdout=0, **SHAPES["uniform"]
            )
            config = RunConfig(options.source, MIXTURE, data, split=split, train=training)
            folder = options.runs / f"{options.source}-{seed}-{start}-{steps}"
            train_cell(config, source, folder, options.results, key)


if __name__ == "__main__":
    main(tyro.cli(Options))
