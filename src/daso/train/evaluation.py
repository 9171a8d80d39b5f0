"""Measure a network on the test and hold-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from daso.data.images.pool import ImageRows, Pool
from daso.data.training_data import TrainingData
from daso.evaluate.metrics import confusion_matrix, evaluate_logits
from daso.evaluate.predict import represent_in_batches
from daso.files import Row
from daso.nets.network import Network
from daso.train.step.state import Training

Answers = Mapping[str, Tensor]
"""Logits (N, K) of the images of each measured pool, ``"test"`` and ``"holdout"``."""


def evaluate_network(network: Network, data: TrainingData) -> Row:
    """Measure a network on the test and hold-out images: ``{"test": ..., "holdout": ...}``."""
    return measure(_answer(network, data, partial(represent_in_batches, network)), data)


def answers_of(training: Training, data: TrainingData) -> Answers:
    """Return the answers of the moving average, computed once for each of its states."""
    if training.answers is None:
        network = training.average.network
        training.answers = _answer(network, data, partial(training.represent, network))
    return training.answers


def measure(answers: Answers, data: TrainingData) -> Row:
    """Return the metrics of each pool."""
    pools, counts = measured_pools(data), data.class_counts
    return {
        name: evaluate_logits(logits.numpy(), pools[name].labels.cpu().numpy(), counts)
        for name, logits in answers.items()
    }


def count_confusions(answers: Answers, data: TrainingData) -> Row | None:
    """Count predictions on the test images or the hold-out: row = truth, column = prediction."""
    measured_on = "holdout" if data.test is None else "test"
    pool = measured_pools(data).get(measured_on)
    if pool is None:
        return None
    predicted = answers[measured_on].argmax(1).numpy()
    counts = confusion_matrix(pool.labels.cpu().numpy(), predicted, len(data.class_names))
    names = list(data.class_names)
    return {"measured_on": measured_on, "class_names": names, "counts": counts.tolist()}


@torch.no_grad()
def _answer(
    network: Network, data: TrainingData, represent: Callable[[ImageRows], Iterator[Tensor]]
) -> Answers:
    def answer(pool: Pool) -> Tensor:
        batches = represent(pool.images)
        return torch.cat([network.classify(batch, network.output) for batch in batches]).cpu()

    return {name: answer(pool) for name, pool in measured_pools(data).items()}


def measured_pools(data: TrainingData) -> dict[str, Pool]:
    """Return the pools that a network is measured on, by name."""
    return {name: data.pools[name] for name in ("test", "holdout") if name in data.pools}
