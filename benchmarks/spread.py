"""Numbers of several seeds as a cell of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation, of a single value that alone, of none nothing."""
    if not values:
        return ""
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def ahead(
    rows: Mapping[str, Mapping[str, str]],
    others: Mapping[str, Mapping[str, str]],
    column: str = "balanced_accuracy",
) -> str:
    """Return how far rows by seed are ahead of others, seed by seed where both are, and how often they are."""
    differences = [
        float(rows[seed][column]) - float(others[seed][column])
        for seed in sorted(rows.keys() & others.keys())
    ]
    if not differences:
        return ""
    return (
        f"{spread(differences)} ({sum(value > 0 for value in differences)} of {len(differences)})"
    )
