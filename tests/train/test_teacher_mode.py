"""Which statistics the moving average normalizes by while it teaches."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from daso.data.source import Source
from daso.train.config import RunConfig
from daso.train.prepare import Prepared, prepare

MakeConfig = Callable[..., RunConfig]


def prepared_with(tiny_config: MakeConfig, digits: Source, **options: object) -> Prepared:
    prepared = prepare(tiny_config("fixmatch+daso", method_options=options), digits)
    for step in range(3):  # so that running statistics and weights are no longer the first ones
        prepared.training.advance(prepared.batches(step))
    return prepared


def prototypes(features: Tensor, labels: Tensor, before: Tensor, seen: Tensor) -> Tensor:
    """Return the means of all features of each class, given the prototypes before and of how many they were."""
    means = before.clone()
    for label in labels.unique():
        own = features[labels == label]
        total = before[label] * seen[label] + own.sum(0)
        means[label] = total / (seen[label] + len(own))
    return means


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_the_queue_is_filled_under_the_statistics_that_are_asked_for(
    tiny_config: MakeConfig, digits: Source, batch_statistics: bool
) -> None:
    prepared = prepared_with(tiny_config, digits, queue_batch_statistics=batch_statistics)
    training, queue, batch = (
        prepared.training,
        prepared.training.method.refine.queue,
        prepared.batches(3),
    )
    before, seen, images = queue.prototypes.clone(), queue.seen.clone(), batch.labeled[0]
    with torch.no_grad():
        by_mode = [
            copy.deepcopy(training.average.network).train(mode)(images)
            for mode in (batch_statistics, not batch_statistics)
        ]
    training.network.eval()
    training.average.network.train(not batch_statistics)  # as an evaluation may have left it
    training.advance(batch)
    assert training.network.training
    expected, other = (prototypes(features, batch.labels, before, seen) for features in by_mode)
    torch.testing.assert_close(queue.prototypes, expected)
    assert (expected - other).abs().max() > 1e-3


def test_the_mean_teacher_has_statistics_of_its_batch(
    tiny_config: MakeConfig, digits: Source
) -> None:
    training = (prepared := prepare(tiny_config("meanteacher"), digits)).training
    training.advance(prepared.batches(0))
    batch = prepared.batches(1)
    with torch.no_grad():
        teacher = copy.deepcopy(training.average.network).train()
        expected = teacher.classify(teacher(batch.unlabeled[1])).softmax(1).max(1).values
    training.average.network.eval()
    step, _ = training.advance(batch)
    torch.testing.assert_close(step.pseudo_labels.confidence, expected)
