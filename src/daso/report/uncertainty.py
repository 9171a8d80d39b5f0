"""The sampling error of balanced accuracy."""

from __future__ import annotations

import numpy as np

from daso.report.runs import Array


def interval(recall: Array, counts: Array) -> float | None:
    """Return half of the 95% interval of balanced accuracy; None if no class was measured.

    1.96 sqrt(sum_k r_k (1 - r_k) / n_k) / K over the measured classes. The recalls r_k count one
    extra hit and one extra miss, so that few hits among as few images are not certain. The
    difference between seeds is not included.

    Args:
        recall: (K,); NaN if a class was not measured.
        counts: measured images of each class, (K,).
    """
    there = (counts > 0) & np.isfinite(recall)
    if not there.any():
        return None
    n = counts[there]
    r = np.clip((recall[there] * n + 1) / (n + 2), 0, 1)
    return 1.96 * float(np.sqrt((r * (1 - r) / n).sum())) / int(there.sum())
