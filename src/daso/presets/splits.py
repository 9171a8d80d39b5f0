"""The long-tailed split that a named source gets when the command line names none."""

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
