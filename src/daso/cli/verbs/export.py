"""``daso export``: write the model of a run as one file to share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from daso.cli.terminal.arguments import RunArgument
from daso.cli.terminal.counters import notice
from daso.errors import DataError


@dataclass(frozen=True)
class ExportCommand:
    """Write the model of a run as one file: uint8 images in, calibrated probabilities out.

    The file is read back and compared with the original on real images. A model card is written
    beside it. Formats: onnx, for onnxruntime and others; torch, a .pt2 for torch alone;
    safetensors, the weights for daso.load.
    """

    folder: RunArgument
    """The run folder."""
    format: Literal["onnx", "torch", "safetensors"] = "onnx"
    """Format of the file."""
    out: Path | None = None
    """The file to write (default: model.onnx, model.pt2 or model.safetensors in the run folder)."""
    images: tuple[str, ...] = ()
    """Images to compare on, as in daso predict (default: the run's test, hold-out or labeled
    images)."""


def _values(places: Sequence[str]) -> Iterator[Any]:
    from daso.cli.prediction.inputs import Inputs

    for item in Inputs(places):
        if isinstance(item.value, DataError):
            raise item.value
        yield item.value


def run(command: ExportCommand) -> None:
    """Export a run."""
    from daso.export.run import export_run

    exported = export_run(
        command.folder,
        command.format,
        command.out,
        images=_values(command.images) if command.images else None,
        warn=notice,
    )
    size = exported.path.stat().st_size / 1e6
    check = exported.check
    print(f"{exported.path}: {size:.1f} MB; card: {exported.card}")
    print(
        f"{check.runtime} and the original differ by at most {check.difference:.1e} in a "
        f"probability on {check.images} {check.what}"
    )
    if check.from_run is not None:
        print(
            "the run computes in another precision: it gives the same class for "
            f"{check.same_class} of them, with probabilities up to {check.from_run:.2g} apart "
            "(daso predict --precision float32 matches this file)"
        )
