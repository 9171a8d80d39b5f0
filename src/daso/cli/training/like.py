"""How a run repeated with ``daso train --like RUN`` differs from that run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from daso.data.source import Source
from daso.data.training_data import prepare_data
from daso.errors import DasoError, named_key
from daso.files import flatten, read_json
from daso.report.data_changes import describe_changes
from daso.train.config import RunConfig
from daso.train.folder.environment import describe_differences, describe_environment
from daso.train.prepare import Prepared
from daso.train.run_data import describe_data


def compare_with(
    run: Path, prepared: Prepared, source: Source, notice: Callable[[str], None]
) -> dict[str, Any]:
    """Print how a run differs from the one it repeats; return the differences for its record.

    Another seed, split or size gives other pools of the same images, which is not a difference in
    the data: the images are compared in the split of the earlier run.
    """
    config = RunConfig.read(run)
    before, now = flatten(config.to_dict()), flatten(prepared.config.to_dict())
    names = sorted((before.keys() | now.keys()) - {"journal"})  # the data says it
    changed = {n: (before.get(n), now.get(n)) for n in names if before.get(n) != now.get(n)}
    options = [f"{named_key(n)} {_shown(a)}, now {_shown(b)}" for n, (a, b) in changed.items()]
    same_size = config.size == prepared.config.size
    data = _changed_images(run, config, prepared, source) if same_size else []
    device = prepared.data.labeled.images.device
    current = describe_environment(device, prepared.config.method)
    environment = describe_differences(read_json(run / "environment.json"), current)
    differences = {"options": options, "data": data, "environment": environment}
    for kind, changes in differences.items():
        if changes:
            notice(f"differs from {run}, {kind}: {'; '.join(changes)}")
    if not any(differences.values()):
        notice(f"as {run}: options, data and environment are the same")
    return {"run": str(run.resolve()), "differs": differences}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _changed_images(run: Path, config: RunConfig, prepared: Prepared, source: Source) -> list[str]:
    data, saved = prepared.data, read_json(run / "data.json")
    if (config.split, config.train.seed) != (prepared.config.split, prepared.config.train.seed):
        try:
            data = prepare_data(
                source, config.split, config.train.seed, torch.device("cpu"), memory=0
            )
        except DasoError as error:
            return [f"these images no longer give the split of {run}: {error}"]
    return describe_changes(saved, json.loads(json.dumps(describe_data(data))))
