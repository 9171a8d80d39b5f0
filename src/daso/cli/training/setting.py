"""What a benchmark setting decides about the method of a single training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from daso.cli.training.command import TrainCommand, given_options
from daso.presets.benchmarks import PRESETS


def as_in_paper(
    command: TrainCommand,
    options: dict[str, Any],
    argv: Sequence[str],
    notice: Callable[[str], None],
) -> tuple[TrainCommand, dict[str, Any]]:
    """Return a command and its hyper-parameters as the paper has them in the setting that it names.

    Hyper-parameters on the command line stay; a split on it decides whether the distributions differ. Without a
    setting nothing changes. T_dist is decided with the other defaults, not here.

    Args:
        command: as parsed, with the setting's name for a source.
        options: hyper-parameters as parsed.
        argv: tells what was given.
        notice: is told what was decided.
    """
    preset = PRESETS.get(command.source)
    if preset is None:
        return command, options
    split = command.split.or_else(preset.defaults.split)
    if split.unlabeled_head is not None:
        preset = dataclasses.replace(preset, mismatched=split.mismatched)
    preset = dataclasses.replace(preset, defaults=dataclasses.replace(preset.defaults, split=split))
    method, given = preset.method_for(command.method), given_options(argv)
    chosen = {
        name: value
        for name, value in preset.options_for(method).items()
        if name != "dist_temperature" and name not in given
    }
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in chosen.items()]
    if method != command.method:
        flags.insert(0, f"--method {method}")
    if flags:
        notice(f"chosen for {preset.name}, as in the paper: {' '.join(flags)}")
    return dataclasses.replace(command, method=method), options | chosen
