"""``daso evaluate``: measure the model of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import POOLS, class_table, percent, wide_console
from daso.cli.training.notes import not_adjusted
from daso.data.training_data import prepare_data
from daso.errors import DataError, RunError
from daso.files import plain, read_json
from daso.train.config import RunConfig
from daso.train.loop import evaluate_network
from daso.train.model import load_model
from daso.train.prepare import describe_data, moved, open_configured
from daso.train.step.state import choose_device


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure the moving-average network of a run's newest checkpoint on its test and hold-out images."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: str = "auto"
    """cpu, cuda, mps; auto takes the first accelerator there is."""
    json: bool = False
    """Print all numbers as JSON."""


def run(argv: Sequence[str]) -> None:
    """Evaluate as the arguments say."""
    command = parse(EvaluateCommand, argv, "daso evaluate")
    device = choose_device(command.device)
    model = load_model(
        command.folder, device, lambda message: print(f"daso: {message}", file=sys.stderr)
    )
    config = RunConfig.read(command.folder)
    config = moved(config, command.data)
    source = open_configured(config)
    data = prepare_data(source, config.split, config.train.seed, device, config.memory)
    saved, found = read_json(command.folder / "data.json"), describe_data(data)
    for key in ("class_names", "image_shape", "split_fingerprint"):
        if saved.get(key) != found[key]:
            raise RunError(
                f"these are other images than the run's: {key} was {saved.get(key)}, now {found[key]}"
            )
    for pool, fingerprint in (saved.get("images_fingerprints") or {}).items():
        if found["images_fingerprints"][pool] != fingerprint:
            print(f"note: the {pool} images are not those of the run", file=sys.stderr)
    numbers = evaluate_network(model.network, data)
    if not numbers:
        raise DataError(f"{config.source} has neither test nor hold-out images to measure on")
    note = not_adjusted(config)
    if note is not None:
        print(f"note: {note}", file=sys.stderr)
        numbers = {name: {**metrics, "logit_adjusted": None} for name, metrics in numbers.items()}
    if command.json:
        print(json.dumps(plain({"step": model.step, **numbers}), indent=1))
        return
    console = wide_console()
    for name, metrics in numbers.items():
        adjusted = metrics["logit_adjusted"]
        console.print(
            f"on {POOLS[name]} images, after {model.step:,} steps: accuracy {percent(metrics['accuracy'])}%, "
            f"balanced accuracy {percent(metrics['balanced_accuracy'])}%"
            + (f" ({percent(adjusted['balanced_accuracy'])}% logit-adjusted)" if adjusted else "")
        )
        console.print(class_table(model.class_names, model.labeled_counts, metrics))
