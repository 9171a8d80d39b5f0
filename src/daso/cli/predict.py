"""``daso predict``: classify image files with the model of a run."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import torch
import tyro

from daso.data.decode import SUFFIXES, decode
from daso.errors import DataError, OptionError
from daso.evaluate.metrics import adjust_logits
from daso.evaluate.predict import predict_logits
from daso.files import read_json
from daso.train.model import Model, load_model
from daso.train.training import choose_device

BATCH = 256


BALANCED = frozenset({"la", "abc", "crt", "class-balanced", "ldam"})
"""Parts of a method that leave no bias to frequent classes for post-hoc adjustment."""


@dataclass(frozen=True)
class PredictCommand:
    """Classify images with the moving-average network of a run's newest checkpoint.

    The exit status is 1 if an image could not be read; its row says why, and the others are classified.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files, and folders that are searched for images at any depth."""
    out: Path | None = None
    """CSV file to write (default: standard output): path, class, confidence."""
    probabilities: bool = False
    """Add a column with the probability of each class."""
    logit_adjusted: bool = False
    """Divide by the class frequencies of the labelled images first: better where all classes are as likely."""
    device: str = "auto"
    """cpu, cuda, mps; auto takes the first accelerator there is."""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, and the images of folders at any depth, sorted, hidden ones left out.

    Raises:
        DataError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist")
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            hidden = {
                p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)
            }
            found.extend(sorted(hidden))
        else:
            found.append(path)
    if not found:
        raise DataError(f"no image in {', '.join(map(str, paths))}; endings: {', '.join(sorted(SUFFIXES))}")
    return found


def predict_files(
    model: Model, files: Sequence[Path], *, logit_adjusted: bool = False
) -> Iterator[tuple[Path, np.ndarray[tuple[int], np.dtype[np.float64]] | str]]:
    """Yield each file with its class probabilities (K,), or with the reason why it cannot be read."""
    channels, height, width = model.image_shape
    for start in range(0, len(files), BATCH):
        chunk = files[start : start + BATCH]
        images: dict[Path, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
        reasons: dict[Path, str] = {}
        for file in chunk:
            try:
                images[file] = decode(file, channels=channels, size=min(height, width))
            except DataError as error:
                reasons[file] = str(error)
        if images:
            stacked = torch.from_numpy(np.stack(list(images.values())))
            logits = predict_logits(model.network, stacked).double().numpy()
            if logit_adjusted:
                logits = adjust_logits(logits, np.array(model.labeled_counts))
            probs = torch.from_numpy(logits).softmax(1).numpy()
            known = dict(zip(images, probs, strict=True))
        for file in chunk:
            yield file, reasons[file] if file in reasons else known[file]


def run(argv: Sequence[str]) -> int:
    """Predict as the arguments say; 1 if any image could not be read."""
    command = tyro.cli(PredictCommand, args=list(argv), prog="daso predict")
    if not command.images:
        raise OptionError("name the image files, or folders of images, that shall be classified")
    device = choose_device(command.device)
    model = load_model(command.folder, device, lambda message: print(f"daso: {message}", file=sys.stderr))
    method = str(read_json(command.folder / "config.json")["method"])
    balanced = BALANCED & set(method.split("+"))
    if command.logit_adjusted and balanced:
        print(
            f"note: {method} has balanced its classifier already ({', '.join(sorted(balanced))}); "
            f"--logit-adjusted corrects a second time",
            file=sys.stderr,
        )
    _, height, width = model.image_shape
    if height != width:
        raise OptionError(
            f"the model was trained on {height}x{width} images; files are made square: not supported"
        )
    files = image_files(command.images)
    if command.out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # file names need not be Unicode
        return _write(command, model, files, sys.stdout)
    temporary = command.out.with_name(f".{command.out.name}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            status = _write(command, model, files, file)
        temporary.replace(command.out)
    except OSError as error:
        raise DataError(f"cannot write {command.out}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    print(f"{len(files)} images: {command.out}", file=sys.stderr)
    return status


def _write(command: PredictCommand, model: Model, files: Sequence[Path], out: IO[str]) -> int:
    writer = csv.writer(out)
    header = ["path", "class", "confidence"]
    header += [f"probability_{name}" for name in model.class_names] if command.probabilities else []
    writer.writerow([*header, "error"])
    failed = 0
    for path, answer in predict_files(model, files, logit_adjusted=command.logit_adjusted):
        if isinstance(answer, str):
            failed += 1
            print(f"daso: {path}: {answer}", file=sys.stderr)
            writer.writerow([path, *[""] * (len(header) - 1), answer])
            continue
        best = int(answer.argmax())
        row = [path, model.class_names[best], f"{answer[best]:.6f}"]
        row += [f"{p:.6f}" for p in answer] if command.probabilities else []
        writer.writerow([*row, ""])
    if failed:
        print(f"daso: {failed} of {len(files)} images could not be read", file=sys.stderr)
    return 1 if failed else 0
