"""Export a run as one file, compare it with the original, and write a card."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from daso.data.images.encoded import Item
from daso.data.open import list_own
from daso.data.places import NAMES
from daso.errors import DasoError, DataError, OptionError, RunError
from daso.evaluate.metrics import Array
from daso.export.card import Check, model_card
from daso.export.classifier import Classifier
from daso.export.formats import SUFFIXES, Answer, Format, write_onnx, write_safetensors, write_torch
from daso.export.loading import classifier_of, load_run
from daso.files import read_json, replacing, reported, write_text
from daso.train.config import RunConfig
from daso.train.run_data import configured_reading, open_configured

TOLERANCE = 1e-4
"""Largest accepted difference of a probability from the original."""
MAX_IMAGES = 64
"""Number of images that an exported file is compared on, at most."""
RUNTIMES = {"onnx": "onnxruntime", "torch": "torch.export", "safetensors": "daso.load"}


@dataclass(frozen=True)
class Exported:
    """An exported model, its card, and its comparison with the original."""

    path: Path
    card: Path
    check: Check


def export_run(
    folder: Path,
    kind: Format,
    out: Path | None = None,
    *,
    images: Iterable[Any] | None = None,
    encoder: nn.Module | None = None,
    warn: Callable[[str], None] = print,
) -> Exported:
    """Write the model of a run as one file and compare it with the original.

    Args:
        folder: of the run.
        kind: format of the file.
        out: path of the model; the card's has ``.md`` appended. None: ``model`` in the run folder.
        images: to compare on, in any form that ``Classifier.prepare`` takes; None: the run's own.
        encoder: for a run with an encoder from Python: a module like it.
        warn: called with a message about damaged checkpoints or a missing calibration.

    Raises:
        OptionError: the suffix of *out* is not that of the format.
        RunError: the file cannot be written, or its answers differ; nothing is left behind.
        DataError: there are no images to compare on.
        MissingDependencyError: the format needs a package that is not installed.
    """
    out = out or folder / f"model{SUFFIXES[kind]}"
    if out.suffix != SUFFIXES[kind]:
        raise OptionError(
            f"{out}: the suffix must be {SUFFIXES[kind]}, by which the format is recognized"
        )
    model, facts = load_run(folder, torch.device("cpu"), warn, encoder)
    trained_in = model.network.precision
    model.network.precision = "float32"  # that of every exported file
    original = classifier_of(model.network, facts)
    data = read_json(folder / "data.json")
    if images is None:
        samples, what = _own_samples(model.config, original, bool(data.get("holdout")))
    else:
        given = list(itertools.islice(images, MAX_IMAGES))
        if not given:
            raise DataError("no image to compare on")
        samples, what = original.prepare_all(given), "given images"
    with reported(f"write {out}"), replacing(out) as temporary:
        with temporary.open("wb"):
            pass  # detects a read-only folder before the work
        answer: Answer
        if kind == "safetensors":
            answer = write_safetensors(model, facts, temporary, data, encoder)
        else:
            answer = (write_onnx if kind == "onnx" else write_torch)(model, facts, temporary)
        exported = np.asarray(answer(samples), dtype=np.float64)
        first = np.asarray(answer(samples[:1]), dtype=np.float64)  # alone: any batch size must work
        difference = _difference(original.probabilities(samples), exported, first, what)
        from_run = same_class = None
        if trained_in != "float32":
            model.network.precision = trained_in
            in_run = original.probabilities(samples)
            from_run = float(np.abs(exported - in_run).max())
            same_class = int((in_run.argmax(1) == exported.argmax(1)).sum())
        check = Check(len(samples), what, difference, RUNTIMES[kind], from_run, same_class)
        text = model_card(folder, model, facts, kind, out.name, check)
    card = out.with_name(f"{out.name}.md")
    write_text(card, text)
    return Exported(out, card, check)


def _difference(expected: Array, exported: Array, first: Array, what: str) -> float:
    if exported.shape != expected.shape:
        raise RunError(f"the exported file returns {exported.shape}, the original {expected.shape}")
    difference = max(np.abs(exported - expected).max(), np.abs(first - expected[:1]).max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported file differs from the original by {difference:.2g} in a probability on "
            f"{len(expected)} {what}, more than {TOLERANCE:g}; it was deleted"
        )
    return float(difference)


def _own_samples(config: RunConfig, classifier: Classifier, holds_out: bool) -> tuple[Array, str]:
    """Return test, held-out or labeled images of a run as the model takes them, and their name.

    Args:
        holds_out: whether some of the labeled images were held out from training.
    """
    labeled = "labeled or held-out" if holds_out else "labeled"
    names = {"test": "test", "validation": "hold-out", "train": labeled}
    try:
        listing = None
        if config.source not in NAMES:  # your images: only a few are decoded
            reading = replace(configured_reading(config), skip_bad=True)
            listing = list_own(config.source, reading, config.journal)
        if listing is not None:
            part = next(part for part in names if part in listing.pools)
            files = itertools.chain.from_iterable(listing.pools[part].chunks())
            return _readable(classifier, files), f"{names[part]} images"
        source = open_configured(config)
    except DasoError as error:
        raise DataError(
            f"the run's data cannot be read ({error}); give images with --images"
        ) from error
    pools = ((name, getattr(source, part)) for part, name in names.items())
    name, pool = next((name, pool) for name, pool in pools if pool is not None)
    chosen = np.linspace(0, len(pool) - 1, min(MAX_IMAGES, len(pool))).astype(np.int64)
    samples = pool.images[chosen]
    if samples.ndim == 3:  # versions of vectors; the first one is plain
        samples = samples[:, 0]
    return np.ascontiguousarray(samples), f"{name} {'images' if samples.ndim == 4 else 'vectors'}"


def _readable(classifier: Classifier, files: Iterable[Item]) -> Array:
    samples, reason = [], ""
    for file in itertools.islice(files, MAX_IMAGES):
        try:
            if isinstance(file, DataError):
                raise file
            samples.append(classifier.prepare(file))
        except DataError as error:
            reason = str(error)
    if not samples:
        raise DataError(f"no image can be read: {reason}")
    return np.stack(samples)
