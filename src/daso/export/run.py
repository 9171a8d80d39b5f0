"""From a run folder to a file to give away, checked against the original, with a card that describes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from daso.errors import OptionError, RunError
from daso.export.card import Check, model_card
from daso.export.classifier import Classifier
from daso.export.formats import SUFFIXES, Answer, Format, write_onnx, write_safetensors, write_torch
from daso.export.loading import load_run, network_answer
from daso.export.samples import sample_inputs
from daso.files import read_json, replacing, write_atomically

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Largest difference of a probability from the original that is let through."""


@dataclass(frozen=True)
class Exported:
    """What was written: the model, the card beside it, and how the check went."""

    path: Path
    card: Path
    check: Check


def export_run(
    folder: Path,
    kind: Format,
    out: Path | None = None,
    *,
    inputs: Callable[[Classifier], tuple[Array, str]] | None = None,
    encoder: nn.Module | None = None,
    warn: Callable[[str], None] = print,
) -> Exported:
    """Write the model of a run as one file, read it back, and compare its answers with the original's.

    Args:
        folder: of the run.
        kind: of the file.
        out: of the model; the card is called the same with ``.md`` behind. None: ``model`` in the run folder.
        inputs: returns images to compare on, as the model takes them, and what they are; None: the run's own.
        encoder: of a run that was given an encoder from Python, a module like it.
        warn: is told of damaged checkpoints and of a calibration that is missing.

    Raises:
        OptionError: *out* has not the ending of the format.
        RunError: it cannot be written, or answers otherwise than the original; nothing is left then.
        DataError: there are no images to compare on.
        MissingDependencyError: a format needs what is not installed.
    """
    out = out or folder / f"model{SUFFIXES[kind]}"
    if out.suffix != SUFFIXES[kind]:
        raise OptionError(
            f"{out}: files of this format end in {SUFFIXES[kind]}, by which they are known again"
        )
    model, facts = load_run(folder, torch.device("cpu"), warn, encoder)
    if facts.calibration_note:
        warn(f"probabilities are not calibrated: {facts.calibration_note}")
    trained_in = model.network.precision
    model.network.precision = "float32"  # of every exported file, whatever the training's was
    original = Classifier(network_answer(model.network, facts.temperature), facts)
    images, what = (inputs or (lambda classifier: sample_inputs(model.config, classifier)))(
        original
    )
    card = out.with_name(f"{out.name}.md")
    try:
        with replacing(out) as temporary:
            temporary.touch()  # a folder that cannot be written is noticed before the work
            answer: Answer
            if kind == "safetensors":
                data = read_json(folder / "data.json")
                answer = write_safetensors(model, facts, temporary, data, encoder)
            else:
                answer = (write_onnx if kind == "onnx" else write_torch)(model, facts, temporary)
            check = _compare(original, answer, images, what, kind)
            if trained_in != "float32":
                model.network.precision = trained_in
                check = _compare_with_run(check, original.probabilities(images), answer(images))
            text = model_card(folder, model, facts, kind, out.name, check)
        write_atomically(card, text.encode())
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error
    return Exported(out, card, check)


def _compare(original: Classifier, answer: Answer, images: Array, what: str, kind: Format) -> Check:
    """Compare all images at once, and the first one alone: the batch is free."""
    expected = original.probabilities(images)
    found = np.asarray(answer(images), dtype=np.float64)
    alone = np.asarray(answer(images[:1]), dtype=np.float64)
    runtimes = {"onnx": "onnxruntime", "torch": "torch.export", "safetensors": "daso.load"}
    if found.shape != expected.shape:
        raise RunError(f"the exported file answers {found.shape}, the original {expected.shape}")
    difference = float(max(np.abs(found - expected).max(), np.abs(alone - expected[:1]).max()))
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported file differs from the original by {difference:.2g} in a probability on {len(images)} "
            f"{what}, more than {TOLERANCE:g}: it was not kept"
        )
    return Check(len(images), what, difference, runtimes[kind])


def _compare_with_run(check: Check, of_run: Array, found: Array) -> Check:
    """Add how far a file in float32 is from the answers of its run, whose network computes in less."""
    found = np.asarray(found, dtype=np.float64)
    same = int((of_run.argmax(1) == found.argmax(1)).sum())
    return dataclasses.replace(check, from_run=float(np.abs(found - of_run).max()), same_class=same)
