"""How well a balanced accuracy is known, from the number of images that it was measured on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def interval(recall: Array, counts: Array) -> float | None:
    """Return half of the 95% interval of balanced accuracy; None where no class was measured.

    1.96 sqrt(sum_k r_k (1 - r_k) / n_k) / K over the measured classes, with recalls r_k that count one hit and one
    miss more than there were, so that a few hits out of as few are no certainty. What another seed would change is not
    in it.

    Args:
        recall: of each class, (K,); NaN where it was not measured.
        counts: images of each class to measure on, (K,).
    """
    there = (counts > 0) & np.isfinite(recall)
    if not there.any():
        return None
    n = counts[there]
    r = np.clip((recall[there] * n + 1) / (n + 2), 0, 1)
    return 1.96 * float(np.sqrt((r * (1 - r) / n).sum())) / int(there.sum())
