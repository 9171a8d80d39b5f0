"""The whole of ``daso train FOLDER --freeze`` against its encoder's own time.

    python benchmarks/frozen_time.py --data PHOTOS --weights lite0.safetensors

The command starts with no embedding kept: start, decoding, export, embedding, the mixture and the
files of the run count. The encoder's own time is that of as many images in memory, floats of its
size: in torch, in torch with bfloat16, in ONNX Runtime, and in bfloat16 with operations fused by
oneDNN, as the command computes it where there are bfloat16 units; measured in between.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from common import daso_command, environment_with, provenance, ratio, show
from torch import Tensor

from daso.files import read_json
from daso.nets.engines import FusedEncoder, OnnxEncoder
from daso.report.results import append_row
from daso.train.allocator import keep_freed_memory
from daso.train.encoder.pretrained import open_named
from daso.train.options import TrainOptions

BATCH, BATCHES = 10, 20
"""Images at a time, as the command has them at 224 pixels, and batches that are timed."""


@dataclass(frozen=True)
class FrozenTime:
    """Time both, in turn, and append a row to the results file."""

    data: Path
    """Folder of photographs: ``labeled/CLASS``, ``unlabeled``, ``test/CLASS``."""
    weights: Path
    network: str = "timm:tf_efficientnet_lite0"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the command."""
    rounds: int = 3
    threads: int = 2
    results: Path = Path("results/frozen_time.csv")


def whole_command(options: FrozenTime) -> tuple[float, int]:
    """Return the seconds of the command, and how many images it embedded."""
    with tempfile.TemporaryDirectory() as place:
        words = ["train", str(options.data), "--freeze", "--network", options.network]
        words += ["--weights", str(options.weights), "--precision", options.precision]
        words += ["--embedding-folder", f"{place}/embeddings", "--out", f"{place}/run"]
        environment = environment_with(options.threads)
        started = time.perf_counter()
        subprocess.run(daso_command(*words), check=True, env=environment, capture_output=True)
        seconds = time.perf_counter() - started
        data = read_json(Path(place, "run", "data.json"))
    counts = [data["unlabeled"], data["holdout"], data["test"]]
    return seconds, sum(data["labeled_counts"]) + sum(count or 0 for count in counts)


@torch.no_grad()
def seconds_per_image(encoder: Callable[[Tensor], Tensor], images: Tensor) -> float:
    encoder(images)
    started = time.perf_counter()
    for _ in range(BATCHES):
        encoder(images)
    return (time.perf_counter() - started) / (BATCHES * len(images))


def main(options: FrozenTime) -> None:
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    chosen = TrainOptions(network=options.network, weights=str(options.weights), freeze=True)
    backbone = open_named(chosen)
    assert backbone is not None
    side = backbone.preprocessing.resolution or 224
    images = torch.randn(BATCH, 3, side, side)
    exported = OnnxEncoder(backbone.module.eval(), images)
    in_torch = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        fused = FusedEncoder(backbone.module, in_torch)
    sides = ("torch", "bfloat16", "onnx", "fused")
    seconds: dict[str, list[float]] = {name: [] for name in ("command", *sides)}
    for _ in range(options.rounds):
        taken, count = whole_command(options)
        seconds["command"].append(taken)
        seconds["torch"].append(count * seconds_per_image(backbone.module, in_torch))
        with torch.autocast("cpu", torch.bfloat16):
            seconds["bfloat16"].append(count * seconds_per_image(backbone.module, in_torch))
        seconds["onnx"].append(count * seconds_per_image(exported, images))
        seconds["fused"].append(count * seconds_per_image(fused, in_torch))
    for other in sides:
        print(f"command / {other}: {show(ratio(seconds['command'], seconds[other]))}")
    medians = {f"{name}_seconds": f"{statistics.median(s):.1f}" for name, s in seconds.items()}
    row = {"network": options.network, "side": side, "precision": options.precision}
    row |= {"images": count, "rounds": options.rounds}
    append_row(options.results, {**row, **medians, **provenance(options.threads)})


if __name__ == "__main__":
    main(tyro.cli(FrozenTime))
