"""The training loop: a generator of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from daso.data.store import Pool, TrainingData
from daso.errors import RunError
from daso.evaluate.metrics import confusion_matrix, evaluate_logits
from daso.evaluate.predict import predict_logits
from daso.methods.method import Batch
from daso.nets.network import Network
from daso.train.options import learning_rate
from daso.train.record import LossRecord, PseudoLabelRecord
from daso.train.training import Training

Row = dict[str, Any]


def evaluate_network(network: Network, data: TrainingData) -> Row:
    """Measure a network on the test and hold-out images, where there are such: ``{"test": ..., "holdout": ...}``."""

    def measure(pool: Pool) -> Row:
        logits = predict_logits(network, pool.images)
        return evaluate_logits(logits.numpy(), pool.labels.cpu().numpy(), data.class_counts)

    pools = {"test": data.test, "holdout": data.holdout}
    return {name: measure(pool) for name, pool in pools.items() if pool is not None}


def count_confusions(network: Network, data: TrainingData) -> Row | None:
    """Count a network's answers on the test images, or else the hold-out: row = true class, column = answer."""
    measured_on, pool = ("holdout", data.holdout) if data.test is None else ("test", data.test)
    if pool is None:
        return None
    answers = predict_logits(network, pool.images).argmax(1).numpy()
    counts = confusion_matrix(pool.labels.cpu().numpy(), answers, len(data.class_names))
    return {"measured_on": measured_on, "class_names": list(data.class_names), "counts": counts.tolist()}


def fit(training: Training, batches: Callable[[int], Batch], data: TrainingData) -> Iterator[Row]:
    """Train from where *training* stands to its last step, yielding rows of numbers.

    A row has ``event`` and ``step`` (steps done). ``"train"`` rows: ``loss``, ``losses`` by name,
    ``learning_rate``, ``share_confident``, ``steps_per_second``, means since the row before. ``"evaluate"`` rows,
    of the moving average: ``test`` and ``holdout`` metrics, and the ``pseudo_labels`` since the last one. The
    state of *training* is consistent whenever a row is yielded, so that is when to save it.

    Raises:
        RunError: a loss or a weight is not finite; noticed at the next ``"train"`` row, to spare every step a
            synchronisation with the device.
    """
    options = training.options
    losses = LossRecord()
    truth = data.labeled.labels[:0] if data.unlabeled is None else data.unlabeled.labels
    record = PseudoLabelRecord(len(data.class_names), truth)
    confident: list[Tensor] = []
    clock, last_step = time.perf_counter(), training.step
    while training.step < options.steps:
        batch = batches(training.step)
        step, total = training.advance(batch)
        losses.add({**step.losses, "total": total})
        if step.pseudo_labels is not None:
            record.add(step.pseudo_labels, batch.indices)
            confident.append(step.pseudo_labels.mask.mean())

        done = training.step
        evaluates = done % options.evaluation_period == 0 or done == options.steps
        if not evaluates and done % options.log_every:
            continue
        means = losses.take()
        finite = all(abs(value) < float("inf") for value in means.values())
        if not finite or (evaluates and not training.is_finite()):
            raise RunError(
                f"a loss or a weight became infinite or NaN between step {last_step} and {done}: {means}; "
                f"the last checkpoint is kept. Try a lower --learning-rate"
                + (" or --precision float32" if options.precision != "float32" else "")
            )
        elapsed = time.perf_counter() - clock
        training.seconds += elapsed
        row: Row = {
            "event": "train",
            "step": done,
            "loss": means.pop("total"),
            "losses": means,
            "learning_rate": learning_rate(training.schedule, training.base_rate, done - 1, options.steps),
            "steps_per_second": (done - last_step) / elapsed,
            "seconds": training.seconds,
        }
        if confident:
            row["share_confident"] = float(sum(confident)) / len(confident)
            confident.clear()
        yield row
        clock, last_step = time.perf_counter(), done
        if evaluates:
            row = {"event": "evaluate", "step": done, **evaluate_network(training.average.network, data)}
            if pseudo_labels := record.take():
                row["pseudo_labels"] = {**pseudo_labels, **training.method.describe()}
            training.seconds += time.perf_counter() - clock
            row["seconds"] = training.seconds
            yield row
            clock = time.perf_counter()
