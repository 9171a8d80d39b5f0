"""The sampling error of balanced accuracy."""

from __future__ import annotations

import numpy as np

from daso.report.runs import Array

WIDE = 0.05
"""Half of a 95% interval of balanced accuracy that is too wide to compare methods."""


def is_wide(half: float | None) -> bool:
    """Return whether half a 95% interval, if it is known, is too wide to compare methods."""
    return half is not None and half >= WIDE


def interval(recall: Array, counts: Array, weights: Array | None = None) -> float | None:
    """Return half of the 95% interval of balanced accuracy; None if no class was measured.

    1.96 sqrt(sum_k r_k (1 - r_k) / n_k) / K over the measured classes. The recalls r_k count one
    extra hit and one extra miss, so that few hits among as few images are not certain. The
    difference between seeds is not included.

    Args:
        recall: (K,); NaN if a class was not measured.
        counts: measured images of each class, (K,).
        weights: of the classes in another mean of recalls, (K,); accuracy weights by *counts*.
    """
    there = (counts > 0) & np.isfinite(recall)
    if weights is not None:
        there &= weights > 0
    if not there.any():
        return None
    n, share = counts[there], np.ones(int(there.sum())) if weights is None else weights[there]
    r = np.clip((recall[there] * n + 1) / (n + 2), 0, 1)
    return 1.96 * float(np.sqrt((share**2 * r * (1 - r) / n).sum())) / float(share.sum())
