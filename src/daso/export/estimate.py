"""The class distribution of images whose labels nobody knows, estimated from what a model says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from daso.evaluate.prior import estimate_prior
from daso.export.facts import ModelFacts
from daso.plans.estimate import nearest_distribution

Array = npt.NDArray[Any]


def estimate_distribution(
    facts: ModelFacts, chunks: Callable[[], Iterable[Array]]
) -> tuple[Array, str]:
    """Estimate the class distribution of N images, float64 (K,), and say how.

    Where the hold-out had at least ten images of every class: the distribution q for which C q is nearest to the mean
    of the probabilities, C being the confusion on the hold-out (Lipton, Wang, Smola, ICML 2018, with probabilities in
    place of answers). It allows for a network that hardly ever names a rare class. Else the expectation-maximisation
    of Saerens et al., 2002, which takes the probabilities at their word and then may lose such a class altogether.

    Args:
        facts: of the model.
        chunks: starts a pass over the calibrated probabilities, (n, K) each, N >= 1 rows in all.

    Raises:
        DataError: there is no row.
    """
    if facts.confusion is None:
        return estimate_prior(chunks, facts.prior), "expectation-maximisation"
    total, count = np.zeros(len(facts.class_names)), 0
    for probs in chunks():
        total, count = total + probs.sum(0, dtype=np.float64), count + len(probs)
    mean = torch.from_numpy(total / max(count, 1))
    confusion = torch.tensor(facts.confusion, dtype=torch.float64)
    return nearest_distribution(confusion, mean).numpy(), "the confusion on the hold-out"
