"""``daso predict``: classify images with a trained model."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from daso.cli.prediction.inputs import Input, Inputs
from daso.cli.prediction.output import Cells, Journal, check_output, write_csv, write_output
from daso.cli.prediction.progress import Counter
from daso.cli.prediction.stream import predict_inputs
from daso.cli.terminal.parse import parse
from daso.data.images.decode import SUFFIXES
from daso.errors import DataError, OptionError
from daso.evaluate.prior import shift

if TYPE_CHECKING:  # help and wrong options need no torch
    from daso.export.classifier import Classifier
    from daso.export.facts import ModelFacts

Array = npt.NDArray[Any]
UNKNOWN = "unknown"
FEW = 20
"""Unreadable images that are named on the terminal, and classes of an estimated distribution."""


@dataclass(frozen=True)
class PredictCommand:
    """Classify images with a trained model.

    The exit status is 1 if an image could not be read; its row says why, and the others are classified. Probabilities
    are calibrated on the run's hold-out, where it is large enough.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run folder, or an .onnx or .safetensors file of daso export."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PLACE...")]
    """Image files, folders that are searched at any depth, globs, manifests (.csv, .tsv, .jsonl or .parquet with a
    column of paths), .npy or .npz files of images or vectors; - reads a list of files from standard input."""
    out: Path | None = None
    """.csv, .jsonl or .parquet file to write (default: standard output, as CSV): path, class, confidence, error."""
    resume: bool = False
    """Go on with a prediction into OUT that was stopped."""
    top: int = 1
    """Name this many classes, the most probable first."""
    probabilities: bool = False
    """Add a column with the probability of each class."""
    unsure: float = 0.0
    """Answer "unknown" where the confidence is below this, 0 to 1."""
    prior: str | None = None
    """Class distribution of these images: uniform; labeled, that of the labelled images; estimated, from these images
    themselves, hundreds at least (by the confusion on the hold-out; where that has fewer than ten images of a class, by
    the expectation-maximisation of Saerens et al., 2002, which may lose a rare class); or a JSON file with the share of
    each class by name (default: probabilities as the model learned to give them)."""
    logit_adjusted: bool = False
    """The same as --prior uniform: better where all classes are as likely."""
    device: str = "auto"
    """cpu, cuda, mps; auto takes the first accelerator there is."""
    precision: Literal["float32", "bfloat16"] | None = None
    """The network computes in this one (default: a run folder in that of its training, an exported file in float32)."""

    def check(self) -> None:
        """Refuse what cannot be meant, with an ``OptionError``."""
        if not self.images:
            raise OptionError(
                "name the image files, or folders of images, that shall be classified"
            )
        if not 0 <= self.unsure <= 1:
            raise OptionError(f"--unsure = {self.unsure} must be in [0, 1]")
        if self.top < 1:
            raise OptionError(f"--top = {self.top} must be at least 1")
        if self.logit_adjusted and self.prior not in (None, "uniform"):
            raise OptionError("--logit-adjusted is --prior uniform: give one of them")
        if self.resume and self.out is None:
            raise OptionError(
                "--resume needs --out: what went to the standard output cannot be gone on with"
            )


@dataclass(frozen=True)
class Style:
    """How an answer becomes a row.

    Attributes:
        class_names: K names.
        top: classes to name.
        probabilities: whether a row has them all.
        unsure: confidence below which the class is "unknown".
    """

    class_names: tuple[str, ...]
    top: int
    probabilities: bool
    unsure: float

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        names = ["path", "class", "confidence"]
        names += [
            f"{what}_{place}"
            for place in range(2, self.top + 1)
            for what in ("class", "confidence")
        ]
        if self.probabilities:
            names += [f"probability_{name}" for name in self.class_names]
        return (*names, "error")

    def row(self, name: str, probs: Array) -> Cells:
        """Return the values of the columns of an input that was classified."""
        best = np.argsort(-probs, kind="stable")[: self.top].tolist()
        row: Cells = [name]
        for label in best:
            row += [self.class_names[label], round(float(probs[label]), 6)]
        if probs[best[0]] < self.unsure:
            row[1] = UNKNOWN
        if self.probabilities:
            row += [round(value, 6) for value in probs.tolist()]
        return [*row, None]

    def failure(self, name: str, reason: str) -> Cells:
        """Return those of an input that could not be read."""
        return [name, *[None] * (len(self.columns) - 2), reason]


def _read_prior(given: str, facts: ModelFacts) -> Array:
    """Return the class distribution that is named, or that a file holds."""
    path = Path(given)
    if path.suffix.lower() != ".json" and not path.is_file():
        if given not in ("uniform", "labeled"):
            raise OptionError(
                f"unknown --prior {given!r}; valid: uniform, labeled, estimated, or a .json file of shares"
            )
        return facts.read_prior(given)
    try:
        shares = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"--prior {path} cannot be read: {error}") from error
    if not isinstance(shares, dict | list):
        raise OptionError(f'--prior {path} must hold an object such as {{"cat": 0.2, "dog": 0.8}}')
    return facts.read_prior(shares)


def run(argv: Sequence[str]) -> int:
    """Predict as the arguments say; 1 if any image could not be read."""
    command = parse(PredictCommand, argv, "daso predict")
    command.check()
    if command.out is not None:
        check_output(command.out)
    inputs = Inputs(command.images)
    from daso.export.loading import load

    classifier = load(command.model, command.device, precision=command.precision)
    facts, names = classifier.facts, classifier.class_names
    if command.top > len(names):
        raise OptionError(f"--top = {command.top}, but there are {len(names)} classes")
    if command.unsure and UNKNOWN in names:
        raise OptionError(f"a class is called {UNKNOWN!r}, so --unsure could not be told from it")
    wanted = "uniform" if command.logit_adjusted else command.prior
    estimates = wanted == "estimated"
    target = None if wanted is None or estimates else _read_prior(wanted, facts)
    if wanted == "uniform" and facts.balanced_by:
        print(
            f"note: {facts.method} has balanced its classifier already ({', '.join(facts.balanced_by)}): "
            f"there is no bias to frequent classes left to correct a second time",
            file=sys.stderr,
        )
    style = Style(names, command.top, command.probabilities, command.unsure)

    def to_row(name: str, answer: Array | str) -> Cells:
        if isinstance(answer, str):
            return style.failure(name, answer)
        if estimates:  # in the journal, until all are there
            return [name, [float(f"{value:.7g}") for value in answer], None]
        return style.row(
            name, answer if target is None else shift(answer[None], facts.prior, target)[0]
        )

    if command.out is None and not estimates:
        return _stream(classifier, inputs, style, to_row)
    with tempfile.TemporaryDirectory() as spool:
        out = command.out or Path(spool) / "predictions.csv"
        options = dataclasses.asdict(command)
        for elsewhere in ("model", "images", "out", "resume", "device"):
            options.pop(elsewhere)
        task = {"facts": facts.to_metadata(), "options": json.dumps(options, default=str)}
        task["prior"] = json.dumps(None if target is None else target.tolist())
        journal = Journal(out.with_name(f"{out.name}.partial"), task, resume=command.resume)
        try:
            _fill(journal, classifier, inputs, to_row)
        except KeyboardInterrupt:
            if command.out is not None:
                print(
                    f"{journal.count:,} images are in {journal.path}; the same command with --resume goes on",
                    file=sys.stderr,
                )
            raise
        finished = _with_estimate(journal, style, facts) if estimates else journal.read()
        if command.out is None:
            _print_rows(style.columns, finished)
        else:
            write_output(out, style.columns, finished)
        journal.close(remove=True)
    return _conclude(journal.count, journal.failed, command.out)


def _reader(inputs: Inputs) -> Iterator[Input]:
    """Start a pass over the inputs; a ``DataError`` if there is none."""
    reader = iter(inputs)
    first = next(reader, None)
    if first is None:
        raise DataError(
            f"no image in {', '.join(inputs.places)}; endings: {', '.join(sorted(SUFFIXES))}"
        )
    return itertools.chain([first], reader)


def _stream(
    classifier: Classifier,
    inputs: Inputs,
    style: Style,
    to_row: Callable[[str, Array | str], Cells],
) -> int:
    """Print the rows as they come; return the exit status."""
    reader = _reader(inputs)
    _print_rows(style.columns, [])
    failed = count = 0
    with Counter(inputs, to_terminal=not sys.stdout.isatty()) as counter:
        for answers in predict_inputs(classifier, reader):
            rows = [to_row(*answer) for answer in answers]
            _print_rows(None, rows)
            failed, count = failed + counter.add(rows), count + len(rows)
    return _conclude(count, failed, None)


def _fill(
    journal: Journal,
    classifier: Classifier,
    inputs: Inputs,
    to_row: Callable[[str, Array | str], Cells],
) -> None:
    """Bring a journal to the end of the inputs."""
    try:
        reader = _reader(inputs)
        journal.skip(reader)
        if journal.count:
            print(f"going on after {journal.count:,} images", file=sys.stderr)
        with Counter(inputs, to_terminal=True, done=journal.count) as counter:
            for answers in predict_inputs(classifier, reader):
                rows = [to_row(*answer) for answer in answers]
                journal.rows(rows)
                counter.add(rows)
    except DataError:
        if not journal.holds_rows():
            journal.close(remove=True)
        raise


def _with_estimate(journal: Journal, style: Style, facts: ModelFacts) -> Iterator[Cells]:
    """Yield the rows of a journal of probabilities, shifted to the class distribution estimated from all of them."""
    readable = journal.count - journal.failed
    if not readable:
        yield from (style.failure(row[0], row[-1]) for row in journal.read())
        return
    with tempfile.TemporaryFile() as file:
        probs = np.memmap(file, np.float32, "w+", shape=(readable, len(style.class_names)))
        good = (row[1] for row in journal.read() if row[-1] is None)
        for place, values in enumerate(good):
            probs[place] = values
        chunks = -(-readable // 65536)
        from daso.export.estimate import estimate_distribution

        estimate, how = estimate_distribution(facts, lambda: np.array_split(probs, chunks))
    order = np.argsort(-estimate, kind="stable")[:FEW].tolist()
    shares = ", ".join(f"{style.class_names[k]} {estimate[k]:.1%}" for k in order)
    more = f", and {len(estimate) - FEW} more classes" if len(estimate) > FEW else ""
    print(
        f"class distribution of {readable:,} images, estimated by {how}: {shares}{more}",
        file=sys.stderr,
    )
    lost = [
        name
        for name, share in zip(style.class_names, estimate, strict=True)
        if share * readable < 1
    ]
    if lost:
        print(
            f"note: by this estimate there is no image of {', '.join(lost[:FEW])}"
            f"{' and others' if len(lost) > FEW else ''}, and none will be said to be of it; if that cannot be, "
            f"take another --prior",
            file=sys.stderr,
        )
    for row in journal.read():
        if row[-1] is not None:
            yield style.failure(row[0], row[-1])
        else:
            yield style.row(row[0], shift(np.array([row[1]]), facts.prior, estimate)[0])


def _print_rows(columns: tuple[str, ...] | None, rows: Iterable[Cells]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names need not be Unicode
    write_csv(sys.stdout, columns, rows)


def _conclude(count: int, failed: int, out: Path | None) -> int:
    """Say what came of it and return the exit status."""
    if out is not None:
        print(f"{count:,} images: {out}", file=sys.stderr)
    if failed:
        print(f"daso: {failed:,} of {count:,} images could not be read", file=sys.stderr)
    return 1 if failed else 0
