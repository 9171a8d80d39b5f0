"""What a named source gets when the command line does not say: its split, its length, its resolution."""

from __future__ import annotations

from daso.data.longtail import SplitOptions

DEFAULT_SPLITS = {
    "digits": SplitOptions(
        labeled_head=30, unlabeled_head=80, gamma_labeled=15, gamma_unlabeled=15, holdout=100
    ),
    "fashion-mnist": SplitOptions(
        labeled_head=250, unlabeled_head=3000, gamma_labeled=50, gamma_unlabeled=50
    ),
    "cifar10": SplitOptions(labeled_head=500, unlabeled_head=4000, gamma_labeled=100, gamma_unlabeled=100),
    "cifar100": SplitOptions(labeled_head=50, unlabeled_head=400, gamma_labeled=10, gamma_unlabeled=10),
    "stl10": SplitOptions(labeled_head=150, gamma_labeled=10),
}
"""The first column of the DASO paper's tables for the benchmarks; for the small sources, settings of like shape."""

DEFAULT_STEPS = {
    "digits": 1_000,
    "fashion-mnist": 10_000,
    "cifar10": 250_000,
    "cifar100": 250_000,
    "stl10": 250_000,
}
"""The paper's 250,000 for its benchmarks."""
OWN_DATA_STEPS = 10_000
"""For people's own data."""

DEFAULT_RESOLUTION = {"stl10": 32}
"""The paper's STL-10 images are augmented at 96 pixels and resized to 32."""
