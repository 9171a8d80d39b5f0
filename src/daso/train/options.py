"""The options of a training, with the paper's values as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from daso.balance import Sampling
from daso.constraints import Device, Range, check_options
from daso.errors import OptionError

Schedule = Literal["constant", "cosine", "multistep", "thirds"]
Optimizer = Literal["sgd", "adamw"]

ADAMW_RATE = 1e-3
PROBE_RATE = 0.1
"""For every method: their own rates are for deep networks; at 0.03 a linear classifier needs three times the steps."""


@dataclass(frozen=True)
class TrainOptions:
    """How long, how fast and on what a network is trained."""

    steps: int = 250_000
    """Training steps (default: the paper's 250,000 for its benchmarks; for your own data chosen from the number of
    images and printed)."""
    batch: int = 64
    """B: labelled images per step."""
    unlabeled_ratio: int | None = None
    """mu: unlabelled images per labelled one in a step (default: the method's, mostly 2)."""
    labeled_sampling: Sampling = "uniform"
    """How labelled images are drawn: uniform: shuffled passes over all of them; class-balanced: every class is as
    likely as any other; effective-number: an image in inverse proportion to the effective number of its class."""
    learning_rate: float | None = None
    """Base learning rate (default: the method's, 0.03 or, supervised, 0.1; of a probe 0.1; with adamw 0.001)."""
    backbone_rate: float | None = None
    """Base learning rate of the encoder, where it shall differ from that of the heads (default: a tenth of it for
    pretrained weights)."""
    layer_decay: float = 1.0
    """The encoder's rate is multiplied by this for every block further down from the heads; 0.75 is usual for
    pretrained transformers."""
    optimizer: Optimizer = "sgd"
    """sgd; or adamw, which transformers need: try --weight-decay 0.05 with it."""
    schedule: Schedule | None = None
    """Learning rate over time: constant; cosine = cos(7 pi t / 16 T); multistep = linear warm-up over 2.5% of
    the steps, then x 0.01 at 80% and again at 90%; thirds = linear warm-up over an eighteenth of the steps, then
    x 0.1 at a third and again at two thirds (default: the method's)."""
    momentum: float = 0.9
    """Nesterov momentum of SGD; the first moment's decay of AdamW."""
    weight_decay: float = 5e-4
    """Weight decay of all parameters, with SGD batch norms and biases included."""
    ema_decay: float = 0.999
    """rho: decay of the network's moving average, which is what is evaluated."""
    network: str | None = None
    """wrn-DEPTH-WIDTH, resnet18, resnet34, resnet50, small (default: by image size); pretrained: hf:NAME, timm:NAME,
    a folder of weights (a transformers model, a run)."""
    weights: str | None = None
    """File of weights to start from, safetensors, for a network of ours or a timm one."""
    freeze: bool = False
    """Compute the embeddings of all images by the pretrained network once and train on them."""
    weak_versions: int = 2
    """Weakly augmented versions of every image to embed, with --freeze."""
    strong_versions: int = 4
    """Strongly augmented versions of every image to embed, with --freeze."""
    embedding_network: str = "probe"
    """Network on the embeddings, with --freeze: probe (a linear classifier made for them), linear, mlp-WIDTH,
    mlp-WIDTH-DEPTH."""
    embedding_folder: str | None = None
    """Where embeddings are kept, for all runs that can use them (default: ~/.cache/daso/embeddings)."""
    resolution: int | None = None
    """Side in pixels to which images are resized on their way into the network, after augmentation (default: as
    they are; stl10: 32)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's activations; weights and losses stay float32."""
    device: Device = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the first accelerator there is."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them, which takes half of the memory off a step
    and a few percent off its speed; the numbers are the same. For networks of ours, in one process."""
    compile: bool = False
    """Compile the step with torch.compile."""
    cuda_graph: bool = False
    """Record the step once as a CUDA graph and start it whole from then on, which spares a fast GPU the wait for
    Python. For methods whose steps all do the same work; not with DARP."""
    evaluate_every: int | None = None
    """Steps between evaluations, each with a checkpoint (default: 500, or a fiftieth of a short run)."""
    save_minutes: float = 10.0
    """Minutes at most between checkpoints, should evaluations be further apart."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """When a loss or a weight becomes infinite or NaN: stop; or rollback: go on from the last checkpoint with half
    the learning rate."""
    rollbacks: int = 3
    """Times that a run is rolled back at most; then it stops."""
    deploy: Literal["last", "best"] = "last"
    """The network that is the run's model, for predict, evaluate, export and report: the last one, or the one of the
    highest balanced accuracy on the hold-out (without a hold-out the last one)."""
    patience: int | None = None
    """Stop after so many evaluations without a higher balanced accuracy on the hold-out (default: never)."""
    log_every: int = 20
    """Steps between rows of training numbers."""
    seed: int = 0
    """Of the split, the initial weights, the order of the images and their augmentation."""

    def __post_init__(self) -> None:
        check_options(self, RANGES)

    @property
    def evaluation_period(self) -> int:
        """Steps between evaluations: the option, or 500, or a fiftieth of a short run."""
        return self.evaluate_every or max(1, min(500, self.steps // 50))


RANGES = {
    "steps": Range(1),
    "batch": Range(1),
    "unlabeled_ratio": Range(1),
    "learning_rate": Range(0, above=True),
    "backbone_rate": Range(0, above=True),
    "layer_decay": Range(0, 1, above=True),
    "momentum": Range(0, 1, below=True),
    "weight_decay": Range(0),
    "ema_decay": Range(0, 1, below=True),
    "weak_versions": Range(0),
    "strong_versions": Range(0),
    "resolution": Range(8),
    "evaluate_every": Range(1),
    "save_minutes": Range(0, above=True),
    "rollbacks": Range(1),
    "patience": Range(1),
    "log_every": Range(1),
    "seed": Range(0, 2**32, below=True),
}


def base_learning_rate(options: TrainOptions, of_method: float) -> float:
    """Return the base learning rate: as given, or AdamW's, or that of a probe, or the method's."""
    if options.learning_rate is not None:
        return options.learning_rate
    if options.optimizer == "adamw":
        return ADAMW_RATE
    return PROBE_RATE if options.freeze and options.embedding_network == "probe" else of_method


def backbone_rate(options: TrainOptions, of_method: float, pretrained: bool) -> float | None:
    """Return the encoder's base learning rate: as given; a tenth of that of the heads for one that is pretrained."""
    if options.backbone_rate is not None or not pretrained or options.freeze:
        return options.backbone_rate
    return base_learning_rate(options, of_method) / 10


def learning_rate(schedule: Schedule, base: float, step: int, steps: int) -> float:
    """Return the learning rate of step *step* (from 0) of *steps*.

    ``constant``; ``cosine``: base * cos(7 pi step / (16 steps)), FixMatch's; ``multistep``: linear warm-up over
    the first 2.5% of the steps, then base, x 0.01 from 80% and x 0.0001 from 90% on, the DASO paper's for
    supervised learning; ``thirds``: linear warm-up over the first eighteenth, then base, x 0.1 from a third and
    x 0.01 from two thirds on, its schedule for Semi-Aves (5, 30 and 60 of 90 epochs).

    Raises:
        OptionError: there is no such schedule.
    """
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * math.cos(7 * math.pi * step / (16 * steps))
    if schedule == "multistep":
        warmup = round(0.025 * steps)
        if step < warmup:
            return base * (step + 1) / warmup
        return base * 0.01 ** ((step >= 0.8 * steps) + (step >= 0.9 * steps))
    if schedule == "thirds":
        warmup = round(steps / 18)
        if step < warmup:
            return base * (step + 1) / warmup
        return base * 0.1 ** ((3 * step >= steps) + (3 * step >= 2 * steps))
    raise OptionError(f"unknown schedule {schedule!r}; valid: {', '.join(get_args(Schedule))}")
