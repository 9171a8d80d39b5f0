"""``daso evaluate``: measure the model of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from daso.cli.terminal.arguments import RunArgument
from daso.cli.terminal.counters import notice, tell

DECISIVE = ("class_names", "image_shape", "split_fingerprint")
"""What must be as in the run's ``data.json``."""


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure the newest checkpoint of a run on its test and hold-out images."""

    folder: RunArgument
    """The run folder."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: str = "auto"
    """cpu, cuda or mps; auto takes the first available accelerator."""
    json: bool = False
    """Print all numbers as JSON."""


def run(command: EvaluateCommand) -> None:
    """Evaluate the model."""
    from daso.cli.terminal.tables import class_table, wide_console
    from daso.cli.training.notes import not_adjusted
    from daso.data.training_data import prepare_data
    from daso.errors import DataError, RunError
    from daso.files import plain, read_json
    from daso.report.data_changes import describe_changes
    from daso.report.wording import POOLS, of_classes, percent
    from daso.train.evaluation import evaluate_network
    from daso.train.model import load_model
    from daso.train.run_data import describe_data, open_configured, read_config, undo_sorting
    from daso.train.step.state import choose_device

    device = choose_device(command.device)
    model = load_model(command.folder, device, notice)
    config = read_config(command.folder, command.data)
    source = open_configured(config)
    data = prepare_data(source, config.split, config.train.seed, device, config.memory)
    saved, current = read_json(command.folder / "data.json"), describe_data(data)
    differ = [key for key in DECISIVE if saved.get(key) != current[key]]
    if differ:
        changes = describe_changes(saved, current) or [f"other {key}" for key in differ]
        cure = undo_sorting(config) or "name the run's images with --data"
        raise RunError(f"not the images of the run: {'; '.join(changes)}; {cure}")
    pools = saved.get("images_fingerprints") or {}
    differing = [n for n, value in pools.items() if current["images_fingerprints"][n] != value]
    for change in describe_changes(saved, current, differing):
        tell(f"note: not the images of the run: {change}")
    numbers = evaluate_network(model.network, data)
    if not numbers:
        raise DataError(f"{config.source} has neither test nor hold-out images to measure on")
    note = not_adjusted(config, saved)
    if note is not None:
        tell(f"note: {note}")
        numbers = {name: {**metrics, "logit_adjusted": None} for name, metrics in numbers.items()}
    if command.json:
        print(json.dumps(plain({"step": model.step, **numbers}), indent=1))
        return
    console = wide_console()
    for name, metrics in numbers.items():
        adjusted = metrics["logit_adjusted"]
        line = (
            f"on {POOLS[name]} images, after {model.step:,} steps: accuracy "
            f"{percent(metrics['accuracy'])}%, balanced accuracy "
            f"{percent(metrics['balanced_accuracy'])}%{of_classes(metrics['recall'])}"
        )
        if adjusted:
            line += f" ({percent(adjusted['balanced_accuracy'])}% logit-adjusted)"
        console.print(line)
        console.print(class_table(model.class_names, model.labeled_counts, metrics))
