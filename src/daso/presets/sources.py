"""What the command line takes for a source where it is not told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from daso.data.longtail import Shape, SplitOptions

if TYPE_CHECKING:  # so that names and settings are known without torch
    from daso.catalog import Hyperparameter
    from daso.methods.method import Method
    from daso.train.options import Schedule
    from daso.train.view_options import Crop

PAPER_STEPS = 250_000
CPU_SIZE = 32
"""Side in pixels to which larger images of one's own are resized without an accelerator."""


@dataclass(frozen=True)
class SourceDefaults:
    """Split, length, sizes and network for a source; None leaves the general default.

    Attributes:
        split: labelled, unlabelled and held-out images.
        steps: training steps.
        dist_temperature: DASO's T_dist where the unlabelled images are distributed like the labelled ones, as far
            as anyone knows.
        batch, network, resolution, unlabeled_ratio, learning_rate, backbone_rate, schedule, weight_decay, ema_decay,
        evaluate_every: see ``TrainOptions``; the last one goes with *steps*.
        cutout, crop_padding, crop: see ``ViewOptions``; strong_side goes for learners that resize first.
        precision, deploy: see ``TrainOptions``.
        warmup_steps, histogram_period, queue_length, queue_batch_statistics: DASO's; the first one goes with *steps*.
        generations, crest_power: CReST's.
        supervised_steps: training steps of a method that learns from labelled images alone.
        reasons: why these were chosen, by option, where that is not the paper's word.
    """

    split: SplitOptions = field(default_factory=SplitOptions)
    steps: int = PAPER_STEPS
    dist_temperature: float = 1.5
    batch: int | None = None
    network: str | None = None
    resolution: int | None = None
    cutout: int | None = None
    crop_padding: int | None = None
    strong_side: int | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    deploy: Literal["last", "best"] | None = None
    unlabeled_ratio: int | None = None
    learning_rate: float | None = None
    backbone_rate: float | None = None
    schedule: Schedule | None = None
    weight_decay: float | None = None
    ema_decay: float | None = None
    evaluate_every: int | None = None
    crop: Crop | None = None
    warmup_steps: int | None = None
    histogram_period: int | None = None
    queue_length: int | None = None
    queue_batch_statistics: bool | None = None
    generations: int | None = None
    crest_power: float | None = None
    supervised_steps: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def part_options(self, known: Mapping[str, Hyperparameter]) -> dict[str, Any]:
        """Return the hyper-parameters of a method's parts, out of those that it has, that are decided here."""
        return {
            name: value
            for name, part in PARTS.items()
            if (value := getattr(self, name)) is not None
            and name in known
            and part in known[name].part
        }

    def for_learner(self, learner: type[Method]) -> SourceDefaults:
        """Return what goes for a learner."""
        own = self if learner.resizes_first else replace(self, strong_side=None)
        if learner.unlabeled_views:
            return own
        whole = None if self.backbone_rate is None else learner.learning_rate
        return replace(own.without_unlabeled(), backbone_rate=whole)

    def without_unlabeled(self) -> SourceDefaults:
        """Return what goes for a method that learns from labelled images alone, at its own learning rate."""
        if self.supervised_steps is None:
            return replace(self, learning_rate=None)
        return replace(self, steps=self.supervised_steps, learning_rate=None, evaluate_every=None)

    def temperature_for(self, shape: Shape | None) -> float:
        """Return DASO's T_dist where the unlabelled images are distributed in a shape."""
        return MISMATCH_TEMPERATURE if shape in ("uniform", "reversed") else self.dist_temperature


PARTS = {
    "warmup_steps": "DASO",
    "histogram_period": "DASO",
    "queue_length": "DASO",
    "queue_batch_statistics": "DASO",
    "generations": "CReST",
    "crest_power": "CReST",
}
"""Hyper-parameters that a source decides, and whose they are; other parts may have some of the same name."""

MISMATCH_TEMPERATURE = 0.3
"""The paper's T_dist where labelled and unlabelled images are distributed differently."""


def _longtail(
    labeled: int, unlabeled: int | None, gamma: float, holdout: int | None = None
) -> SplitOptions:
    if unlabeled is None:
        return SplitOptions(labeled, gamma_labeled=gamma, holdout=holdout)
    return SplitOptions(labeled, unlabeled, gamma, gamma, "consistent", holdout)


SEMI_AVES_LABELED, SEMI_AVES_IN_CLASS, SEMI_AVES_OUT_OF_CLASS = 5_959, 26_640, 122_208


def _semi_aves(unlabeled: int) -> SourceDefaults:
    """Return the paper's setting, which is told in epochs of the unlabelled images."""
    batch, ratio = 256, 5
    epoch = unlabeled / (batch * ratio)
    return SourceDefaults(
        steps=round(90 * epoch),
        supervised_steps=round(90 * SEMI_AVES_LABELED / batch),
        batch=batch,
        unlabeled_ratio=ratio,
        network="resnet34",
        learning_rate=0.04,
        backbone_rate=0.04,  # from ImageNet weights too
        schedule="thirds",
        weight_decay=3e-4,
        ema_decay=0.9,
        evaluate_every=round(epoch),
        crop="resized",
        dist_temperature=0.5,
        warmup_steps=round(20 * epoch),
        histogram_period=round(epoch),
        generations=3,
        crest_power=0.7,
    )


SOURCES = {
    "digits": SourceDefaults(_longtail(30, 80, 15, holdout=100), steps=1_000),
    "fashion-mnist": SourceDefaults(_longtail(250, 3000, 50), steps=10_000),
    "cifar10": SourceDefaults(_longtail(500, 4000, 100)),
    "cifar100": SourceDefaults(_longtail(50, 400, 10), dist_temperature=0.3),
    # Augmented at 96 pixels, cutout 16 of them included, then resized, but by ReMixMatch the other way round, as in the
    # authors' code; the unlabelled distribution is unknown.
    "stl10": SourceDefaults(
        _longtail(150, None, 10),
        dist_temperature=0.3,
        resolution=32,
        cutout=16,
        crop_padding=4,
        strong_side=32,
    ),
    "semi-aves": _semi_aves(SEMI_AVES_IN_CLASS),
    "semi-aves-open": _semi_aves(SEMI_AVES_IN_CLASS + SEMI_AVES_OUT_OF_CLASS),
}
"""The first columns of the DASO paper's tables for its benchmarks; for small sources, settings of like shape."""
