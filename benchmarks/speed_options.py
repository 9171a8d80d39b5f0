"""The settings and options of benchmarks/speed.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from cases import Setting, Variant
from stopwatch import Clock

SETTINGS = {
    "wrn-28-2-64": Setting("wrn-28-2", 64, 3, 32),
    "wrn-28-2-16": Setting("wrn-28-2", 16, 3, 32),
    "small-28": Setting("small", 32, 1, 28),
    "resnet50-224": Setting("resnet50", 32, 3, 224, needs_cuda=True),
    "tiny": Setting("small-4", 4, 1, 8),
}
VARIANTS = {
    "float32": Variant("float32"),
    "float32-recomputed": Variant("float32", recompute=True),
    "float32-compiled": Variant("float32", compile=True),
    "bfloat16": Variant("bfloat16"),
    "bfloat16-recomputed": Variant("bfloat16", recompute=True),
    "bfloat16-compiled": Variant("bfloat16", compile=True),
    "float32-apart": Variant("float32", "apart"),
    "bfloat16-apart": Variant("bfloat16", "apart"),
    "bfloat16-apart-compiled": Variant("bfloat16", "apart", compile=True),
}
CONVENTIONAL = "conventional: float32, joint batch norm, eager"

Section = Literal["steps", "own-work", "overhead", "memory"]


@dataclass(frozen=True)
class Speed:
    """Measure training steps, their parts, and what a run needs around them."""

    settings: tuple[str, ...] = ("wrn-28-2-64",)
    """Of wrn-28-2-64 (the paper's), wrn-28-2-16, small-28, resnet50-224 (CUDA only), tiny."""
    methods: tuple[str, ...] = ("fixmatch", "fixmatch+daso")
    """Which methods."""
    classes: tuple[int, ...] = (10,)
    """K of whole steps; DASO's own work is always measured at 10, 100 and 1000."""
    variants: tuple[str, ...] = (
        "float32",
        "float32-compiled",
        "bfloat16",
        "bfloat16-compiled",
        "bfloat16-apart",
    )
    """Of float32, bfloat16, each with -apart, -recomputed or -compiled behind it."""
    sections: tuple[Section, ...] = ("steps", "own-work", "overhead", "memory")
    """What is measured."""
    rounds: int = 5
    """Rounds, in each of which every side has its turn."""
    steps: int = 2
    """Steps of a turn."""
    threads: int = torch.get_num_threads()
    """Threads of torch, and data-loading processes of the conventional pipeline."""
    clock: Clock = "wall"
    """wall, or processor: the time of all threads and data loaders, for a machine that has other work (Linux)."""
    device: str = "auto"
    """cpu, cuda; auto takes the first accelerator there is."""
    quick: bool = False
    """Everything once on tiny sizes, to see that it works."""
    json: Path | None = None
    """Write every number here."""
    csv: Path | None = None
    """Append a row for every ratio, with what is needed to repeat it, here."""


def quick(speed: Speed) -> Speed:
    return replace(
        speed,
        settings=("tiny",),
        methods=("fixmatch+daso",),
        variants=("float32", "bfloat16-apart"),
        rounds=2,
        steps=2,
        threads=1,
        device="cpu",
    )
