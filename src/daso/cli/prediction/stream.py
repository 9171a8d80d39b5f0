"""Inputs through a classifier: threads decode the next ones while the network works."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.cli.prediction.inputs import Input
from daso.data.images.encoded import WORKERS
from daso.errors import DataError

if TYPE_CHECKING:
    from daso.export.classifier import Classifier

Array = npt.NDArray[Any]
Answer = tuple[str, Array | str]
"""The name of an input with its probabilities, float64 (K,), or with the reason why it cannot be read."""

TASK = 16
"""Images that a thread decodes in one go: with one by one, changing threads costs more than it brings."""
AHEAD = 3
"""Batches that are decoded while the network works on another."""


def predict_inputs(classifier: Classifier, inputs: Iterable[Input]) -> Iterator[list[Answer]]:
    """Classify inputs, some at a time; threads decode the next ones meanwhile."""
    with _threads() as executor:
        waiting: deque[tuple[list[Input], list[Future[list[Array | str]]]]] = deque()
        rest = iter(inputs)
        while True:
            while len(waiting) <= AHEAD and (
                chunk := list(itertools.islice(rest, classifier.batch))
            ):
                tasks = [chunk[start : start + TASK] for start in range(0, len(chunk), TASK)]
                waiting.append(
                    (chunk, [executor.submit(_prepare, classifier, task) for task in tasks])
                )
            if not waiting:
                return
            chunk, futures = waiting.popleft()
            found = [one for future in futures for one in future.result()]
            readable = [one for one in found if not isinstance(one, str)]
            probs = iter(classifier.probabilities(np.stack(readable)) if readable else ())
            yield [
                (item.name, one if isinstance(one, str) else next(probs))
                for item, one in zip(chunk, found, strict=True)
            ]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(WORKERS)
    try:
        with warnings.catch_warnings():
            # decode() turns the size at which Pillow warns into an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare(classifier: Classifier, inputs: Sequence[Input]) -> list[Array | str]:
    """Return each input as the model takes it, or the reason why it cannot be read."""
    found: list[Array | str] = []
    for item in inputs:
        try:
            if isinstance(item.value, DataError):
                raise item.value
            if isinstance(item.value, Path) and not classifier.facts.takes_images:
                raise DataError("this model takes vectors, as rows of an .npy or .npz file")
            found.append(classifier.prepare(item.value))
        except DataError as error:
            found.append(str(error))
    return found
