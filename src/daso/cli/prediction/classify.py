"""Classify the images of ``daso predict``, and write a row for each."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from daso.cli.prediction.command import PredictCommand
from daso.cli.prediction.inputs import Input, Inputs
from daso.cli.prediction.output import (
    UNKNOWN,
    Cells,
    Journal,
    Table,
    check_output,
    weights_checksum,
    write_csv,
    write_output,
)
from daso.cli.prediction.stream import predict_inputs
from daso.cli.terminal.counters import notice, tell
from daso.cli.terminal.tables import progress_bar
from daso.data.images.decode import SUFFIXES
from daso.data.places import absolute_place
from daso.errors import DataError, OptionError, how_many
from daso.evaluate.metrics import Array
from daso.evaluate.prior import doubts, shift

if TYPE_CHECKING:  # wrong places and outputs are refused before torch is imported
    from daso.export.classifier import Classifier
    from daso.export.facts import ModelFacts

ToRow = Callable[[str, Array | str], Cells]
"""Returns a row from an input's name and its probabilities, (K,), or why it cannot be read."""

MAX_NAMED = 20
"""Classes of an estimated distribution, and unreadable images, that are named in the terminal."""
LINE_SECONDS = 15.0
"""Time between lines if the output is not a terminal."""
CHUNK_ROWS = 65_536
"""Rows that are processed at a time while a distribution is estimated."""


class Counter:
    """Shows how many inputs were classified, how fast, and the first unreadable ones.

    Args:
        inputs: counted first if a bar is shown.
        bar: whether a bar may be shown; not while the rows themselves are printed there.
        done: inputs that were classified before.
    """

    def __init__(self, inputs: Inputs, *, bar: bool, done: int = 0) -> None:
        self._progress = progress_bar(
            TextColumn("predicting"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            hidden=not bar,
        )
        total = None if self._progress.disable else inputs.count()
        self._task = self._progress.add_task("predicting", total=total, completed=done, rate="")
        self._done = done
        self.count = self.failed = 0
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Counter:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def add(self, rows: Sequence[Cells]) -> None:
        """Count rows and print the errors of the first unreadable inputs."""
        failures = [row for row in rows if row[-1] is not None]
        for row in failures[: max(0, MAX_NAMED - self.failed)]:
            notice(f"{row[0]}: {row[-1]}")
        self.failed += len(failures)
        self.count += len(rows)
        now = time.monotonic()
        rate = f"{self.count / max(now - self._start, 1e-9):,.0f} images/s"
        self._progress.update(self._task, advance=len(rows), rate=rate)
        if self._progress.disable and now - self._last_line > LINE_SECONDS:
            tell(f"{self._done + self.count:,} images, {rate}")
            self._last_line = now


def classify(command: PredictCommand) -> int:
    """Classify the images; return 1 if one could not be read, else 0."""
    inputs = Inputs(command.images)
    if command.out is not None:
        check_output(command.out)
        if absolute_place(command.out) in map(absolute_place, inputs.places):
            raise OptionError(f"{command.out} is what is read; write to another file")
    from daso.export.loading import load
    from daso.train.allocator import keep_freed_memory

    keep_freed_memory()
    classifier = load(command.model, command.device, precision=command.precision)
    facts, names = classifier.facts, classifier.class_names
    if facts.takes_images:
        inputs.refuse_one_image(facts.input_shape)
    if command.top > len(names):
        raise OptionError(f"--top = {command.top} is more than the model's {len(names)} classes")
    if command.unsure and UNKNOWN in names:
        raise OptionError(f"--unsure cannot be used: a class of the model is named {UNKNOWN!r}")
    table = Table(names, command.top, command.probabilities, command.unsure)
    prior = "logit-adjusted" if command.logit_adjusted else command.prior
    estimates = prior == "estimated"
    target = None if prior is None or estimates else _read_prior(prior, facts)
    if note := facts.balanced_already(prior):
        tell(f"note: {note}")

    def to_row(name: str, answer: Array | str) -> Cells:
        if isinstance(answer, str):
            return table.row(name, answer)
        if estimates:  # the probabilities themselves, until the distribution is known
            return [name, [float(f"{value:.7g}") for value in answer], None]
        return table.row(name, answer if target is None else _shifted(answer, facts, target))

    if command.out is None and not estimates:
        reader = _reader(inputs)
        _print_rows(table.columns, [])
        with Counter(inputs, bar=not sys.stdout.isatty()) as counter:
            for _, rows in _rows(classifier, reader, to_row, inputs.several):
                _print_rows(None, rows)
                counter.add(rows)
        return _conclude(counter.count, counter.failed, None, inputs)
    with tempfile.TemporaryDirectory() as place:
        out = command.out or Path(place) / "predictions.csv"
        journal = _open_journal(command, out, facts, target)
        _fill(journal, classifier, inputs, to_row, resumable=command.out is not None)
        final = _with_estimate(journal, table, facts) if estimates else journal.read()
        if command.out is None:
            _print_rows(table.columns, final)
        else:
            write_output(out, table.columns, final)
        journal.remove()
    return _conclude(journal.count, journal.failed, command.out, inputs)


def _shifted(probs: Array, facts: ModelFacts, target: Array) -> Array:
    shifted: Array = shift(probs[None], facts.prior, target)[0]
    return shifted


def _read_prior(prior: str, facts: ModelFacts) -> Array:
    path = Path(prior)
    if path.suffix.lower() != ".json" and not path.is_file():
        if prior not in ("uniform", "labeled", "logit-adjusted"):
            raise OptionError(
                f"--prior {prior}: invalid choice; choose from uniform, labeled, logit-adjusted, "
                "estimated, or a .json file of shares"
            )
        return facts.read_prior(prior)
    try:
        shares = json.loads(path.read_bytes(), object_pairs_hook=_once_each)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"--prior {path} cannot be read: {reason}") from error
    if not isinstance(shares, dict):
        raise OptionError(f'--prior {path} must hold an object such as {{"cat": 0.2, "dog": 0.8}}')
    return facts.read_prior(shares)


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(shares := dict(pairs)) < len(pairs):
        raise ValueError("a class stands in it twice")
    return shares


def _open_journal(
    command: PredictCommand, out: Path, facts: ModelFacts, prior: Array | None
) -> Journal:
    options = dataclasses.asdict(command)
    for name in ("model", "images", "out", "resume", "device"):
        del options[name]
    task = {
        "facts": facts.to_metadata(),
        "weights": weights_checksum(command.model, facts.step),
        "options": json.dumps(options, default=str),
        "prior": json.dumps(None if prior is None else prior.tolist()),
    }
    return Journal(out.with_name(f"{out.name}.partial"), task, resume=command.resume)


def _reader(inputs: Inputs) -> Iterator[Input]:
    reader = iter(inputs)
    first = next(reader, None)
    if first is None:
        places = ", ".join(inputs.places)
        raise DataError(
            f"no image in {places}; recognized suffixes: {', '.join(sorted(SUFFIXES))}"
            + "".join(f"\n{note}" for note in inputs.passed.notes(places))
        )
    return itertools.chain([first], reader)


def _rows(
    classifier: Classifier, inputs: Iterable[Input], to_row: ToRow, several: list[str]
) -> Iterator[tuple[list[Input], list[Cells]]]:
    for answers in predict_inputs(classifier, inputs, several):
        yield [item for item, _ in answers], [to_row(item.name, answer) for item, answer in answers]


def _fill(
    journal: Journal, classifier: Classifier, inputs: Inputs, to_row: ToRow, *, resumable: bool
) -> None:
    try:
        reader = _reader(inputs)
        again = journal.skip(reader)
        if journal.count:
            more = f"; {len(again):,} that could not be read are tried again" if again else ""
            tell(f"resumed after {how_many(journal.count, 'image')}{more}")
        if again:
            batches = _rows(classifier, again.values(), to_row, inputs.several)
            retried = itertools.chain.from_iterable(zip(*batch, strict=True) for batch in batches)
            journal.replace(dict(zip(again, retried, strict=True)))
        with Counter(inputs, bar=True, done=journal.count) as counter:
            for items, rows in _rows(classifier, reader, to_row, inputs.several):
                journal.write(items, rows)
                counter.add(rows)
    except DataError:
        journal.remove_if_empty()
        raise
    except KeyboardInterrupt:
        if resumable:
            tell(
                f"{how_many(journal.count, 'image')} in {journal.path}; repeat the command with "
                "--resume to continue"
            )
        raise


def _with_estimate(journal: Journal, table: Table, facts: ModelFacts) -> Iterator[Cells]:
    readable = journal.count - journal.failed
    estimate = facts.prior
    if readable:
        with tempfile.TemporaryFile() as file:
            probs = np.memmap(file, np.float32, "w+", shape=(readable, len(table.class_names)))
            for number, row in enumerate(row for row in journal.read() if row[-1] is None):
                probs[number] = row[1]
            chunks = -(-readable // CHUNK_ROWS)
            estimate, how = facts.estimate_distribution(lambda: np.array_split(probs, chunks))
        _print_estimate(estimate, how, table.class_names, readable)
    for name, probs, *_, error in journal.read():
        answer = _shifted(np.array(probs), facts, estimate) if error is None else error
        yield table.row(name, answer)


def _print_estimate(estimate: Array, how: str, names: tuple[str, ...], images: int) -> None:
    order = np.argsort(-estimate, kind="stable")[:MAX_NAMED].tolist()
    shares = ", ".join(f"{names[k]} {estimate[k]:.1%}" for k in order)
    more = f", and {len(names) - MAX_NAMED} more classes" if len(names) > MAX_NAMED else ""
    tell(f"class distribution of {how_many(images, 'image')}, estimated by {how}: {shares}{more}")
    for note in doubts(estimate, names, images):
        tell(f"note: {note}")


def _print_rows(columns: tuple[str, ...] | None, rows: Iterable[Cells]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As in a file; names of files need not be Unicode.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    write_csv(sys.stdout, columns, rows)


def _conclude(count: int, failed: int, out: Path | None, inputs: Inputs) -> int:
    for note in inputs.passed.notes(", ".join(inputs.places)[:200]):
        tell(f"note: {note}")
    if inputs.several:
        holds = f"{len(inputs.several):,} files hold" if inputs.several[1:] else "1 file holds"
        tell(
            f"note: {holds} several frames or pages, such as {min(inputs.several)[:200]!r}; only "
            "the first is classified: write the others to files of their own if they matter"
        )
    if out is not None:
        tell(f"{how_many(count, 'image')}: {out}")
    if failed:
        notice(f"{failed:,} of {count:,} images could not be read")
    return 1 if failed else 0
