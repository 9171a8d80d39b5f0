"""The options of ``daso predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from daso.cli.terminal.parse import Argument
from daso.errors import OptionError, Range


@dataclass(frozen=True)
class PredictCommand:
    """Classify images with a trained model.

    The exit status is 1 if an image could not be read. Its row says why, and the others are
    classified. Probabilities are calibrated on the run's hold-out if that is large enough.
    """

    model: Annotated[Path, Argument("MODEL", positional=True)]
    """A run folder, or an .onnx or .safetensors file of daso export."""
    images: Annotated[tuple[str, ...], Argument("PLACE", positional=True)]
    """Image files, folders (searched at any depth), globs, manifests (.csv, .tsv, .jsonl or
    .parquet with a column of paths), .txt lists of files, .npy or .npz files of images or vectors;
    - reads a list of files from standard input."""
    out: Path | None = None
    """.csv, .jsonl or .parquet file to write (default: CSV to standard output): path, class,
    confidence, error."""
    resume: bool = False
    """Continue a stopped prediction into OUT; images that could not be read are tried again."""
    top: Annotated[int, Range(1)] = 1
    """Number of classes to name for each image, the most probable first."""
    probabilities: bool = False
    """Add a column with the probability of each class."""
    unsure: Annotated[float, Range(0, 1)] = 0.0
    """Answer "unknown" if the confidence is below this value, from 0 to 1. With --top the most
    probable class is in the column class_1."""
    prior: str | None = None
    """Class distribution of these images: uniform; labeled, that of the labeled images;
    logit-adjusted (see there); estimated, from at least some hundred of these images (from the
    confusion on the hold-out; if that has fewer than ten images of a class, by the
    expectation-maximization of Saerens et al., 2002, which may lose a rare class); or a JSON file
    with the share of each class by name (default: the distribution that the model learned)."""
    logit_adjusted: bool = False
    """Name the classes that a run's logit-adjusted numbers count: better if all classes are equally
    likely. Same as --prior uniform, except that the log of the labeled class distribution is
    subtracted before the logits are divided by the temperature (Menon et al., 2021)."""
    device: str = "auto"
    """cpu, cuda, mps; auto takes the first accelerator."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Precision of the network (default: that of the training for a run folder, float32 for an
    exported file)."""

    def __post_init__(self) -> None:
        if not self.images:
            raise OptionError("no images given; name files or folders")
        if self.logit_adjusted and self.prior not in (None, "logit-adjusted"):
            raise OptionError("--logit-adjusted is a prior of its own; leave out --prior")
        if self.resume and self.out is None:
            raise OptionError("output to stdout cannot be resumed; add --out")
