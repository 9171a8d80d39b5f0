"""The options of a training, with the paper's values as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from daso.balance import Sampling
from daso.constraints import Device, check_options
from daso.errors import OptionError, Range, named

Schedule = Literal["constant", "cosine", "multistep", "thirds", "one-cycle"]
Optimizer = Literal["sgd", "adamw"]

ADAMW_RATE = 1e-3
PROBE_RATE = 0.1
"""For probes with every method; the methods' own 0.03 takes three times the steps."""


@dataclass(frozen=True)
class TrainOptions:
    """How long, how fast and with what network to train."""

    steps: Annotated[int, Range(0)] = 250_000
    """Training steps (default: the paper's 250,000 for its benchmarks; for your own data chosen
    from the number of images and printed). 0, for methods with a readout: only that is fitted."""
    batch: Annotated[int, Range(1)] = 64
    """B: labeled images per step."""
    unlabeled_ratio: Annotated[int, Range(1)] | None = None
    """mu: unlabeled images per labeled image in a step (default: the method's, mostly 2)."""
    labeled_sampling: Sampling = "uniform"
    """How labeled images are drawn. uniform: shuffled passes over all of them; class-balanced:
    every class is equally likely; effective-number: in inverse proportion to the effective number
    of the image's class."""
    learning_rate: Annotated[float, Range(0, above=True)] | None = None
    """Base learning rate (default: the method's, 0.03 or, supervised, 0.1; of a probe 0.1; with
    adamw 0.001)."""
    backbone_rate: Annotated[float, Range(0, above=True)] | None = None
    """Base learning rate of the encoder (default: that of the heads; a tenth of it for pretrained
    weights)."""
    layer_decay: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Factor on the encoder's rate for every block further from the heads; 0.75 is usual for
    pretrained transformers."""
    optimizer: Optimizer = "sgd"
    """sgd, or adamw, which transformers need; try --weight-decay 0.05 with it."""
    schedule: Schedule | None = None
    """Learning rate over time. constant; cosine: cos(7 pi t / 16 T); multistep: linear warm-up
    over 2.5% of the steps, then x 0.01 at 80% and again at 90%; thirds: linear warm-up over an
    eighteenth of the steps, then x 0.1 at one third and again at two thirds; one-cycle: linear
    warm-up over a quarter of the steps, then half a cosine to 0 (default: the method's)."""
    momentum: Annotated[float, Range(0, 1, below=True)] = 0.9
    """Nesterov momentum of SGD; decay of the first moment of AdamW."""
    weight_decay: Annotated[float, Range(0)] = 5e-4
    """Weight decay of all parameters; with SGD, batch norms and biases included."""
    ema_decay: Annotated[float, Range(0, 1, below=True)] = 0.999
    """rho: decay of the network's moving average, which is the network that is evaluated. It spans
    about 1 / (1 - rho) steps; in a short training 0.999 averages the first ones too."""
    network: str | None = None
    """wrn-DEPTH-WIDTH, resnet18, resnet34, resnet50, small (default: by image size). Pretrained:
    hf:NAME, timm:NAME, or a folder of weights (a transformers model, a run)."""
    weights: str | None = None
    """File of initial weights (safetensors), for one of our networks or a timm network."""
    freeze: bool = False
    """Embed all images once with the pretrained network, and train on the embeddings."""
    weak_versions: Annotated[int, Range(0)] = 2
    """With --freeze: weakly augmented versions of each image to embed."""
    strong_versions: Annotated[int, Range(0)] = 4
    """With --freeze: strongly augmented versions of each image to embed."""
    embedding_network: str = "probe"
    """With --freeze: network on the embeddings. probe (a linear classifier made for them), linear,
    mlp-WIDTH, mlp-WIDTH-DEPTH."""
    embedding_folder: str | None = None
    """Folder of embeddings, shared by all runs that can use them (default:
    ~/.cache/daso/embeddings)."""
    resolution: Annotated[int, Range(8)] | None = None
    """Side in pixels to which images are resized after augmentation, before the network (default:
    unchanged; stl10: 32)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the encoder's activations; weights and losses stay float32. auto: the faster one
    on this device, measured once on a CPU, and printed."""
    device: Device = "auto"
    """cpu, cuda, cuda:1, mps; auto: the first accelerator, or the CPU."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them: half the memory of a
    step, a few percent slower, the same numbers. For our networks, in one process."""
    compile: bool = False
    """Compile the step with torch.compile."""
    cuda_graph: bool = False
    """Record the step once as a CUDA graph, so that a fast GPU does not wait for Python. For
    methods whose steps all do the same work; not with DARP."""
    evaluate_every: Annotated[int, Range(1)] | None = None
    """Steps between evaluations, each with a checkpoint (default: 500, or a fiftieth of a short
    run)."""
    save_minutes: Annotated[float, Range(0, above=True)] = 10.0
    """Longest time between checkpoints, in minutes, if evaluations are further apart."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """When a loss or a weight becomes infinite or NaN: stop, or rollback to the last checkpoint
    with half the learning rate."""
    rollbacks: Annotated[int, Range(1)] = 3
    """Rollbacks at most; then the run stops."""
    deploy: Literal["last", "best"] = "last"
    """The network that predict, evaluate, export and report use: the last one, or the one with the
    highest balanced accuracy on the hold-out (without a hold-out, the last one)."""
    patience: Annotated[int, Range(1)] | None = None
    """Stop after this many evaluations without a higher balanced accuracy on the hold-out
    (default: never)."""
    log_every: Annotated[int, Range(1)] = 20
    """Steps between rows of training numbers."""
    seed: Annotated[int, Range(0, 2**32, below=True)] = 0
    """Seed of the split, the initial weights, the order of the images and their augmentation."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.recompute and self.compile:
            raise OptionError(
                f"{named('recompute')} and {named('compile')} exclude each other; leave one out"
            )

    @property
    def evaluation_period(self) -> int:
        return self.evaluate_every or max(1, min(500, self.steps // 50))


def base_learning_rate(options: TrainOptions, of_method: float) -> float:
    """Return the base learning rate: as given, else that of AdamW, of a probe or of the method."""
    if options.learning_rate is not None:
        return options.learning_rate
    if options.optimizer == "adamw":
        return ADAMW_RATE
    return PROBE_RATE if options.freeze and options.embedding_network == "probe" else of_method


def backbone_rate(options: TrainOptions, of_method: float, pretrained: bool) -> float | None:
    """Return the encoder's base rate: as given, else a tenth of the heads' if pretrained."""
    if options.backbone_rate is not None or not pretrained or options.freeze:
        return options.backbone_rate
    return base_learning_rate(options, of_method) / 10


def learning_rate(schedule: Schedule, base: float, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0.

    ``cosine``: base * cos(7 pi step / (16 steps)), as in FixMatch; ``multistep``: linear warm-up
    over the first 2.5% of the steps, then base, x 0.01 from 80% and x 0.0001 from 90% on, as in the
    DASO paper for supervised learning; ``thirds``: linear warm-up over the first eighteenth, then
    base, x 0.1 from one third and x 0.01 from two thirds on, as in the paper for Semi-Aves (5, 30
    and 60 of 90 epochs); ``one-cycle``: linear warm-up over the first quarter, then half a cosine
    to 0, as in Smith & Topin, *Super-Convergence*, 2019, but from 0.
    """
    warmup = {"multistep": round(0.025 * steps), "thirds": round(steps / 18)}.get(schedule, 0)
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return base * math.cos(7 * math.pi * step / (16 * steps))
    if schedule == "multistep":
        return base * 0.01 ** ((step >= 0.8 * steps) + (step >= 0.9 * steps))
    if schedule == "thirds":
        return base * 0.1 ** ((3 * step >= steps) + (3 * step >= 2 * steps))
    if schedule == "one-cycle":
        done, peak = step + 0.5, 0.25 * steps
        if done < peak:
            return base * done / peak
        return base * (1 + math.cos(math.pi * (done - peak) / (steps - peak))) / 2
    raise OptionError(f"unknown schedule {schedule!r}; valid: {', '.join(get_args(Schedule))}")
