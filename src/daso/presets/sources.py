"""What the command line takes for a source where it is not told."""

from __future__ import annotations

from dataclasses import dataclass, field

from daso.data.longtail import SplitOptions

PAPER_STEPS = 250_000


@dataclass(frozen=True)
class SourceDefaults:
    """Split, length, sizes and network for a source; None leaves the general default.

    Attributes:
        split: labelled, unlabelled and held-out images.
        steps: training steps.
        dist_temperature: DASO's T_dist where the unlabelled images are distributed like the labelled ones, as far
            as anyone knows.
        batch, network, resolution: see ``TrainOptions``.
        cutout, crop_padding: see ``ViewOptions``.
        size: side in pixels to which images of a folder are resized.
    """

    split: SplitOptions = field(default_factory=SplitOptions)
    steps: int = PAPER_STEPS
    dist_temperature: float = 1.5
    batch: int | None = None
    network: str | None = None
    resolution: int | None = None
    cutout: int | None = None
    crop_padding: int | None = None
    size: int | None = None


MISMATCH_TEMPERATURE = 0.3
"""The paper's T_dist where labelled and unlabelled images are distributed differently."""

OWN_DATA = SourceDefaults(steps=10_000, dist_temperature=MISMATCH_TEMPERATURE)
"""Nobody knows how people's own unlabelled images are distributed."""

OWN_DATA_ON_CPU = SourceDefaults(
    steps=2_000, dist_temperature=MISMATCH_TEMPERATURE, batch=16, network="wrn-10-2", size=32
)
"""Minutes on two cores, where the images would otherwise be larger."""


def _longtail(labeled: int, unlabeled: int | None, gamma: float, holdout: int | None = None) -> SplitOptions:
    if unlabeled is None:
        return SplitOptions(labeled, gamma_labeled=gamma, holdout=holdout)
    return SplitOptions(labeled, unlabeled, gamma, gamma, "consistent", holdout)


SOURCES = {
    "digits": SourceDefaults(_longtail(30, 80, 15, holdout=100), steps=1_000),
    "fashion-mnist": SourceDefaults(_longtail(250, 3000, 50), steps=10_000),
    "cifar10": SourceDefaults(_longtail(500, 4000, 100)),
    "cifar100": SourceDefaults(_longtail(50, 400, 10), dist_temperature=0.3),
    # Augmented at 96 pixels, cutout 16 of them included, then resized; the unlabelled distribution is unknown.
    "stl10": SourceDefaults(
        _longtail(150, None, 10), dist_temperature=0.3, resolution=32, cutout=16, crop_padding=4
    ),
}
"""The first columns of the DASO paper's tables for its benchmarks; for small sources, settings of like shape."""
