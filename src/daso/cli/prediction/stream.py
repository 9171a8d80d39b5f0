"""Pass inputs through a classifier; threads decode the next ones while the network computes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from daso.cli.prediction.inputs import Input
from daso.data.images.decode import holds_several
from daso.data.images.encoded import WORKERS, no_size_warnings
from daso.errors import DataError
from daso.evaluate.metrics import Array

if TYPE_CHECKING:
    from daso.export.classifier import Classifier

Answer = tuple[Input, Array | str]
"""An input, and its probabilities, float64 (K,), or why it cannot be read."""

TASK_IMAGES = 16
"""Images that a thread decodes in one task; one by one, switching threads costs too much."""
BATCHES_AHEAD = 3
"""Batches that are decoded while the network computes another."""


def predict_inputs(
    classifier: Classifier, inputs: Iterable[Input], several: list[str]
) -> Iterator[list[Answer]]:
    """Classify inputs; yield a batch of answers at a time, in order.

    Names of files with further frames or pages, which are not classified, are added to *several*.
    """
    rest = iter(inputs)
    waiting: deque[tuple[list[Input], list[Future[list[Array | str]]]]] = deque()
    with _threads() as executor:
        while True:
            while len(waiting) <= BATCHES_AHEAD and (
                batch := list(itertools.islice(rest, classifier.batch))
            ):
                tasks = (batch[i : i + TASK_IMAGES] for i in range(0, len(batch), TASK_IMAGES))
                prepare = partial(_prepare, classifier, several)
                waiting.append((batch, [executor.submit(prepare, task) for task in tasks]))
            if not waiting:
                return
            batch, futures = waiting.popleft()
            prepared = [one for future in futures for one in future.result()]
            readable = [one for one in prepared if not isinstance(one, str)]
            probs = iter(classifier.probabilities(np.stack(readable)) if readable else ())
            yield [
                (item, one if isinstance(one, str) else next(probs))
                for item, one in zip(batch, prepared, strict=True)
            ]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(WORKERS)
    try:
        with no_size_warnings():
            yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare(
    classifier: Classifier, several: list[str], inputs: Sequence[Input]
) -> list[Array | str]:
    prepared: list[Array | str] = []
    for item in inputs:
        try:
            if isinstance(item.value, DataError):
                raise item.value
            if isinstance(item.value, Path) and not classifier.facts.takes_images:
                raise DataError("this model takes vectors, as rows of an .npy or .npz file")
            prepared.append(classifier.prepare(item.value))
            if isinstance(item.value, Path) and holds_several(item.value):
                several.append(item.name)
        except DataError as error:
            prepared.append(str(error))
    return prepared
