"""``daso train --like RUN``: a run again, from its folder alone, but for the options that are given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from daso.cli.training.command import GROUPS, TrainCommand, given_options
from daso.cli.training.defaults import absolute_method
from daso.compose import Recipe
from daso.data.source import Source
from daso.data.training_data import prepare_data
from daso.errors import DasoError, OptionError
from daso.files import flatten, read_json
from daso.train.config import RunConfig
from daso.train.folder.environment import describe_differences, describe_environment
from daso.train.prepare import Prepared, describe_data, moved

OWN = ("size", "skip_bad", "memory")
"""Fields of a configuration that are options of the command itself."""
RESOLVED = ("learning_rate", "schedule", "unlabeled_ratio")
"""What a method decides where nobody else does."""


def config_like(
    run: Path, command: TrainCommand, method_options: dict[str, Any], argv: Sequence[str]
) -> RunConfig:
    """Return the configuration of a run with the options that are given in place of its own.

    With another method its hyper-parameters are kept where that has them too, and what the run's method decided for
    the training is open again.

    Args:
        run: the folder.
        command: as parsed.
        method_options: as parsed.
        argv: tells what was given.

    Raises:
        OptionError: a source or its parts are given, which come from the run.
    """
    given = given_options(argv)
    if refused := sorted(given & {"labeled", "unlabeled", "val", "test"}):
        raise OptionError(
            f"--like trains on the images of {run}: leave out --{refused[0]}, or name --data"
        )
    config = moved(RunConfig.read(run), command.data if "data" in given else None)
    train: dict[str, Any] = {}
    method = absolute_method(command.method)
    if method != config.method:
        before = Recipe.parse(config.method).method
        train = {
            name: None for name in RESOLVED if getattr(config.train, name) == getattr(before, name)
        }
    for group in GROUPS:
        own: Any = getattr(command, group)
        names = given & {field.name for field in dataclasses.fields(own)}
        values = (train if group == "train" else {}) | {name: getattr(own, name) for name in names}
        config = dataclasses.replace(
            config, **{group: dataclasses.replace(getattr(config, group), **values)}
        )
    options = {
        name: config.method_options[name]
        if name in config.method_options and name not in given
        else value
        for name, value in method_options.items()
    }
    top: dict[str, Any] = {name: getattr(command, name) for name in OWN if name in given}
    if command.cache is not None:
        top["cache"] = str(command.cache.expanduser().resolve())
    return dataclasses.replace(config, method=method, method_options=options, **top)


def compare_with(
    run: Path, prepared: Prepared, source: Source, notice: Callable[[str], None]
) -> dict[str, Any]:
    """Say what differs from a run that is to be repeated; return it for the record of the new one.

    Another seed, split or size gives other pools of the same images, which is no difference in the data: the images
    are compared in the split that the run had.

    Args:
        run: the folder.
        prepared: the new run.
        source: its images, before the split.
        notice: is told.
    """
    config = RunConfig.read(run)
    before, now = flatten(config.to_dict()), flatten(prepared.config.to_dict())
    options = [
        f"{name} {json.dumps(before.get(name))}, now {json.dumps(now.get(name))}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    data = (
        []
        if config.size != prepared.config.size
        else _changed_images(run, config, prepared, source)
    )
    device = prepared.data.labeled.images.device
    environment = describe_differences(
        read_json(run / "environment.json"), describe_environment(device, prepared.config.method)
    )
    differences = {"options": options, "data": data, "environment": environment}
    for what, found_differences in differences.items():
        if found_differences:
            notice(f"differs from {run}, {what}: {'; '.join(found_differences)}")
    if not any(differences.values()):
        notice(f"as {run}: options, data and environment are the same")
    return {"run": str(run.resolve()), "differs": differences}


def _changed_images(run: Path, config: RunConfig, prepared: Prepared, source: Source) -> list[str]:
    """Return what differs between the images that a run had and those of today, in its split."""
    data, saved = prepared.data, read_json(run / "data.json")
    if (config.split, config.train.seed) != (prepared.config.split, prepared.config.train.seed):
        try:
            data = prepare_data(
                source, config.split, config.train.seed, torch.device("cpu"), memory=0
            )
        except DasoError as error:
            return [f"these images do not give the split of {run} any more: {error}"]
    found = json.loads(json.dumps(describe_data(data)))
    differences = [("split", saved.get("split_fingerprint"), found["split_fingerprint"])]
    images = saved.get("images_fingerprints") or {}
    differences += [
        (f"{pool} images", images.get(pool), now)
        for pool, now in found["images_fingerprints"].items()
    ]
    return [
        f"fingerprint of the {what} {json.dumps(before)}, now {json.dumps(now)}"
        for what, before, now in differences
        if before != now
    ]
