"""The training loop: a generator of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from daso.data.training_data import TrainingData
from daso.errors import DivergedError, RunError, first_line
from daso.files import Row
from daso.methods.method import Batch
from daso.train.evaluation import answers_of, measure
from daso.train.readout import ReadoutFitter
from daso.train.step.record import LossRecord, PseudoLabelRecord
from daso.train.step.state import Training

CHECK_EVERY = 20
"""Steps after which NaN and infinity are noticed at the latest."""


def never() -> bool:
    """Return False."""
    return False


def fit(
    training: Training,
    batches: Callable[[int], Batch],
    data: TrainingData,
    pause: Callable[[], bool] = never,
    readout: ReadoutFitter | None = None,
) -> Iterator[Row]:
    """Train from the current step to the last one, yielding rows of numbers.

    A row has ``event`` and ``step`` (finished steps). ``"train"`` rows hold means since the
    previous row: ``loss``, ``losses`` by name, ``learning_rate``, ``share_confident``,
    ``steps_per_second``. ``"evaluate"`` rows hold the ``test`` and ``holdout`` metrics of the
    moving average and the ``pseudo_labels`` since the previous evaluation. ``"pause"`` rows hold
    nothing else. The state of *training* at an ``"evaluate"`` or ``"pause"`` row is finite. Loaded
    into another process, it continues as if nothing had happened.

    Args:
        batches: maps a step, counted from 0, to its batch.
        pause: called after every step; if true, a ``"pause"`` row follows unless there is an
            evaluation.
        readout: fits the readout of the moving average before it is evaluated, which is then
            evaluated before the first step too.

    Raises:
        DivergedError: a loss or a weight is not finite. Noticed at most 20 steps later, which saves
            a synchronization with the device in every step.
    """
    options = training.options
    losses = LossRecord(training.sums)
    truth = data.labeled.labels[:0] if data.unlabeled is None else data.unlabeled.labels
    record = PseudoLabelRecord(len(data.class_names), truth, training.sums)
    sound = last_step = training.step
    clock, last_seconds = time.perf_counter(), training.seconds

    def lap() -> None:
        nonlocal clock
        now = time.perf_counter()
        training.seconds += now - clock
        clock = now

    def evaluate() -> Row:
        """Evaluate the moving average, once its readout is fitted."""
        network, described = training.average.network, Row()
        if readout is not None:
            try:
                described = readout.fit(network, last=training.step == options.steps)
            except (FloatingPointError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
                what = f"the readout cannot be fitted: {first_line(error)}"
                if training.step == 0:
                    raise RunError(f"{what}, before the first step; use other features") from error
                raise _diverged(training, what, training.step, "readout") from error
        training.answers = None
        row = {"event": "evaluate", "step": training.step}
        row |= measure(answers_of(training, data), data)
        return row | ({"readout": described} if described else {})

    def check_losses() -> None:
        if fault := losses.check():
            what = "a weight" if fault.term == "weights" else f"the loss {fault.term!r}"
            raise _diverged(training, f"{what} became {fault.value}", fault.step, fault.term)

    if readout is not None and training.step == 0 and training.average.network.readout is None:
        row = evaluate()
        lap()
        yield row | {"seconds": training.seconds}
        clock, last_seconds = time.perf_counter(), training.seconds
    while training.step < options.steps:
        batch = batches(training.step)
        try:
            step, total = training.advance(batch)
        except (RuntimeError, ValueError):
            check_losses()  # some operations refuse NaN: an earlier fault explains it
            raise
        done = training.step
        numbers = {**step.losses, "total": total}
        if step.pseudo_labels is not None:
            record.add(step.pseudo_labels, batch.indices)
            numbers["share_confident"] = step.pseudo_labels.mask.mean()
        losses.add(done, numbers, training.probe())

        pauses = pause()
        evaluates = done % options.evaluation_period == 0 or done == options.steps
        reports = evaluates or done % options.log_every == 0
        if reports or pauses or len(losses) >= CHECK_EVERY:
            check_losses()
        if evaluates or pauses or done - sound >= CHECK_EVERY:
            if broken := training.broken():
                which = f"{len(broken)} tensors of the state, the first is {broken[0]!r},"
                what = f"{which} became infinite or NaN within the last {done - sound} steps"
                raise _diverged(training, what, done, broken[0])
            sound = done
        if reports:
            lap()
            means = losses.take()
            loss, share = means.pop("total"), means.pop("share_confident", None)
            row = {
                "event": "train",
                "step": done,
                "loss": loss,
                "losses": means,
                "learning_rate": training.rate_of(done - 1),
                "steps_per_second": (done - last_step) / (training.seconds - last_seconds),
                "seconds": training.seconds,
            }
            if share is not None:
                row["share_confident"] = share
            yield row
            clock, last_step, last_seconds = time.perf_counter(), done, training.seconds
        if evaluates:
            row = evaluate()
            if pseudo_labels := record.take():
                row["pseudo_labels"] = {**pseudo_labels, **training.method.describe()}
            lap()
            last_seconds = training.seconds
            yield row | {"seconds": training.seconds}
            clock = time.perf_counter()
        elif pauses:
            lap()
            yield {"event": "pause", "step": done}
            clock = time.perf_counter()


def _diverged(training: Training, what: str, step: int, term: str) -> DivergedError:
    low = training.options.precision != "float32"
    hint = "a lower --learning-rate" + (" or --precision float32" if low else "")
    return DivergedError(f"{what} in step {step}; try {hint}", step, term)
