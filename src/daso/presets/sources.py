"""Defaults that a source decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daso.data.longtail import SplitOptions
from daso.presets.layers import Layer

if TYPE_CHECKING:  # names and settings are known without torch
    from daso.methods.method import Method

PAPER_STEPS = 250_000
CPU_SIZE = 32
"""Side in pixels to which larger images of your own are resized without an accelerator."""
MISMATCH_TEMPERATURE = 0.3
"""The paper's T_dist where labeled and unlabeled images are distributed differently."""
ONLY_WITH = {"evaluate_every": "steps", "warmup_steps": "steps"}
"""Defaults that hold only together with another option's: by option, the other one."""


@dataclass(frozen=True)
class SourceDefaults:
    """Split, length, sizes and network for a source.

    Attributes:
        split: labeled, unlabeled and held-out images.
        options: values of ``TrainOptions`` and ``ViewOptions``, by name.
        semi_supervised: further ones, for methods that learn from unlabeled images too.
        supervised: further ones, for methods that learn from labeled images, or a readout.
        resizes_first: further ones, for methods that resize images before they augment them.
        parts: hyper-parameters by the name of the part that has them, as in ``fixmatch+daso``;
            other parts may have some of the same name.
        dist_temperature: DASO's T_dist where the unlabeled images are distributed like the labeled
            ones, as far as anyone knows.
        reasons: why these were chosen, by option, where that is not the paper's word.
        supervised_reasons: the same for those of *supervised*.
    """

    split: SplitOptions = field(default_factory=SplitOptions)
    options: Mapping[str, Any] = field(default_factory=dict)
    semi_supervised: Mapping[str, Any] = field(default_factory=dict)
    supervised: Mapping[str, Any] = field(default_factory=dict)
    resizes_first: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dist_temperature: float = 1.5
    reasons: Mapping[str, str] = field(default_factory=dict)
    supervised_reasons: Mapping[str, str] = field(default_factory=dict)

    def layer(
        self, decided_by: str, method: str, learner: type[Method], split: SplitOptions
    ) -> Layer:
        """Return what the source decides for a method; T_dist depends on the split."""
        values = {name: value for name, value in vars(self.split).items() if value is not None}
        values |= self.options
        reasons = dict(self.reasons)
        if learner.unlabeled_views and not learner.needs_readout:
            values |= self.semi_supervised
        else:
            values |= self.supervised
            reasons |= self.supervised_reasons
        if learner.resizes_first:
            values |= self.resizes_first
        for part in method.split("+"):
            values |= self.parts.get(part, {})
            if part == "daso":
                values["dist_temperature"] = self.temperature_for(split)
        return Layer(decided_by, values, reasons, ONLY_WITH)

    def temperature_for(self, split: SplitOptions) -> float:
        if split.mismatched or split.unlabeled_shape not in (None, "consistent"):
            return min(self.dist_temperature, MISMATCH_TEMPERATURE)
        return self.dist_temperature


def _longtail(
    labeled: int, unlabeled: int, gamma: float, holdout: int | None = None
) -> SplitOptions:
    return SplitOptions(labeled, unlabeled, gamma, gamma, "consistent", holdout)


SEMI_AVES_LABELED, SEMI_AVES_IN_CLASS, SEMI_AVES_OUT_OF_CLASS = 5_959, 26_640, 122_208


def _semi_aves(unlabeled: int) -> SourceDefaults:
    """Return the paper's setting, which counts in epochs of the unlabeled images."""
    batch, ratio = 256, 5
    epoch = unlabeled / (batch * ratio)
    crest = {"generations": 3, "crest_power": 0.7}
    return SourceDefaults(
        options={
            "batch": batch,
            "unlabeled_ratio": ratio,
            "network": "resnet34",
            "schedule": "thirds",
            "weight_decay": 3e-4,
            "ema_decay": 0.9,
            "crop": "resized",
            "precision": "float32",
        },
        # The encoder, from ImageNet weights too, learns at the rate of the heads.
        semi_supervised={
            "steps": round(90 * epoch),
            "learning_rate": 0.04,
            "backbone_rate": 0.04,
            "evaluate_every": round(epoch),
        },
        supervised={"steps": round(90 * SEMI_AVES_LABELED / batch), "backbone_rate": 0.1},
        parts={
            "daso": {"warmup_steps": round(20 * epoch), "histogram_period": round(epoch)},
            "crest": crest,
            "crest-plus": crest,
        },
        dist_temperature=0.5,
    )


PAPER = {"steps": PAPER_STEPS, "precision": "float32"}
SOURCES = {
    "digits": SourceDefaults(_longtail(30, 80, 15, holdout=100), {"steps": 1_000}),
    "fashion-mnist": SourceDefaults(_longtail(250, 3000, 50), {"steps": 10_000}),
    "cifar10": SourceDefaults(_longtail(500, 4000, 100), PAPER),
    "cifar100": SourceDefaults(_longtail(50, 400, 10), PAPER, dist_temperature=0.3),
    # Images are augmented at 96 pixels, with a cutout of 16 of them, and then resized; ReMixMatch
    # resizes first, as in the authors' code. The unlabeled distribution is unknown.
    "stl10": SourceDefaults(
        SplitOptions(150, gamma_labeled=10),
        {**PAPER, "resolution": 32, "cutout": 16, "crop_padding": 4},
        resizes_first={"strong_side": 32},
        dist_temperature=0.3,
    ),
    "semi-aves": _semi_aves(SEMI_AVES_IN_CLASS),
    "semi-aves-open": _semi_aves(SEMI_AVES_IN_CLASS + SEMI_AVES_OUT_OF_CLASS),
}
"""First columns of the DASO paper's tables; for small sources, settings of the same kind."""
