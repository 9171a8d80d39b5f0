"""``daso export``: write the model of a run as one file to give away."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from daso.cli.prediction.inputs import Inputs
from daso.cli.terminal.parse import parse
from daso.errors import DataError

if TYPE_CHECKING:  # help and wrong options need no torch
    from daso.export.classifier import Classifier


@dataclass(frozen=True)
class ExportCommand:
    """Write the model of a run as one file: uint8 images in, calibrated probabilities out.

    The file is read back and compared with the original on real images; beside it comes a model card. Formats: onnx,
    for onnxruntime and others; torch, a .pt2 for torch alone; safetensors, the weights for daso.load.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    format: Literal["onnx", "torch", "safetensors"] = "onnx"
    """Of the file."""
    out: Path | None = None
    """The file to write (default: model.onnx, model.pt2 or model.safetensors in the run folder)."""
    images: tuple[str, ...] = ()
    """Images to compare on, as daso predict takes them (default: the run's test, hold-out or labelled images)."""


def _inputs(places: Sequence[str], classifier: Classifier) -> tuple[np.ndarray[Any, Any], str]:
    """Return the first images at some places, as the model takes them."""
    from daso.export.samples import MOST

    found = []
    for item in itertools.islice(Inputs(places), MOST):
        if isinstance(item.value, DataError):
            raise item.value
        try:
            found.append(classifier.prepare(item.value))
        except DataError as error:
            raise DataError(f"{item.name}: {error}") from error
    if not found:
        raise DataError(f"no image in {', '.join(places)}")
    return np.stack(found), "given images"


def run(argv: Sequence[str]) -> None:
    """Export as the arguments say."""
    command = parse(ExportCommand, argv, "daso export")
    from daso.export.run import export_run

    exported = export_run(
        command.folder,
        command.format,
        command.out,
        inputs=(lambda classifier: _inputs(command.images, classifier)) if command.images else None,
        warn=lambda message: print(f"daso: {message}", file=sys.stderr),
    )
    size = exported.path.stat().st_size / 1e6
    check = exported.check
    print(f"{exported.path}: {size:.1f} MB; card: {exported.card}")
    print(
        f"{check.runtime} and the original differ by at most {check.difference:.1e} in a probability on "
        f"{check.images} {check.what}"
    )
    if check.from_run is not None:
        print(
            f"the run itself computes in another precision: it says the same class of {check.same_class} of them, with "
            f"probabilities up to {check.from_run:.2g} apart (daso predict --precision float32 answers as this file)"
        )
