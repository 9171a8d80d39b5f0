"""What the command line takes for a named source where it is not told."""

from __future__ import annotations

from dataclasses import dataclass

from daso.data.longtail import SplitOptions

PAPER_STEPS = 250_000


@dataclass(frozen=True)
class SourceDefaults:
    """Split, length and image sizes of a source.

    Attributes:
        split: None: the labelled and unlabelled images as they come.
        steps: training steps.
        resolution: see ``TrainOptions``.
        cutout: see ``ViewOptions``.
    """

    split: SplitOptions | None = None
    steps: int = 10_000
    resolution: int | None = None
    cutout: int | None = None


OWN_DATA = SourceDefaults()

SOURCES = {
    "digits": SourceDefaults(
        SplitOptions(labeled_head=30, unlabeled_head=80, gamma_labeled=15, gamma_unlabeled=15, holdout=100),
        steps=1_000,
    ),
    "fashion-mnist": SourceDefaults(
        SplitOptions(labeled_head=250, unlabeled_head=3000, gamma_labeled=50, gamma_unlabeled=50)
    ),
    "cifar10": SourceDefaults(
        SplitOptions(labeled_head=500, unlabeled_head=4000, gamma_labeled=100, gamma_unlabeled=100),
        PAPER_STEPS,
    ),
    "cifar100": SourceDefaults(
        SplitOptions(labeled_head=50, unlabeled_head=400, gamma_labeled=10, gamma_unlabeled=10), PAPER_STEPS
    ),
    # Augmented at 96 pixels, cutout 16 of them included, then resized.
    "stl10": SourceDefaults(
        SplitOptions(labeled_head=150, gamma_labeled=10), PAPER_STEPS, resolution=32, cutout=16
    ),
}
"""The first columns of the DASO paper's tables for its benchmarks; for small sources, settings of like shape."""
