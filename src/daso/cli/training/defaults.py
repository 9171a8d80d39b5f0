"""From a parsed ``daso train`` to the configuration of a run: what was left open is decided, and said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daso.cli.training.command import TrainCommand
from daso.compose import Recipe
from daso.data.open import is_named
from daso.presets.sources import MISMATCH_TEMPERATURE, SourceDefaults
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.view_options import ViewOptions

PROBE_THRESHOLD = 0.7
TRAIN_DEFAULTS = {field.name for field in dataclasses.fields(TrainOptions)}
VIEW_DEFAULTS = {field.name for field in dataclasses.fields(ViewOptions)}


def _given(argv: Sequence[str], option: str) -> bool:
    return any(argument.partition("=")[0].replace("_", "-") == option for argument in argv)


def _flag(option: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def absolute_method(name: str) -> str:
    """Return a method's name with whole paths of the parts of one's own."""
    parts = name.split("+")
    return "+".join(
        str(Path(part).expanduser().resolve()) if ".py:" in part else part for part in parts
    )


def to_config(
    command: TrainCommand,
    method_options: dict[str, Any],
    argv: Sequence[str],
    defaults: SourceDefaults,
    notice: Callable[[str], None],
) -> RunConfig:
    """Turn a parsed command into a run's configuration.

    Args:
        command: as parsed.
        method_options: as parsed.
        argv: tells what was given and what was left open.
        defaults: decide what was left open.
        notice: is told what they decided.
    """
    recipe = Recipe.parse(command.method)
    known = recipe.hyperparameters()
    defaults = defaults.for_learner(recipe.method)
    if _given(argv, "--steps"):
        defaults = dataclasses.replace(defaults, warmup_steps=None, evaluate_every=None)
    reasons = dict(defaults.reasons)
    split = command.split.or_else(defaults.split)
    train, augmentation, options = command.train, command.augmentation, dict(method_options)
    chosen: dict[str, Any] = {
        name: value for name, value in vars(split).items() if getattr(command.split, name) != value
    }
    for name, value in vars(defaults).items():
        if value is None or _given(argv, f"--{name.replace('_', '-')}"):
            continue
        if name in TRAIN_DEFAULTS:
            train, chosen[name] = dataclasses.replace(train, **{name: value}), value
        elif name in VIEW_DEFAULTS:
            augmentation, chosen[name] = dataclasses.replace(augmentation, **{name: value}), value
    for name, value in defaults.part_options(known).items():
        option = name.replace("_", "-")
        if not _given(argv, f"--{option}") and not _given(argv, f"--no-{option}"):
            options[name] = chosen[name] = value
    if "dist_temperature" in options and not _given(argv, "--dist-temperature"):
        value = defaults.temperature_for(split.unlabeled_shape)
        if split.mismatched:
            value = min(value, MISMATCH_TEMPERATURE)
        options["dist_temperature"] = chosen["dist_temperature"] = value
    probed = train.freeze and train.embedding_network == "probe"
    if probed and "threshold" in known and not _given(argv, "--threshold"):
        options["threshold"] = chosen["threshold"] = PROBE_THRESHOLD
        reasons["threshold"] = "a linear classifier on embeddings is seldom as sure as 0.95"
    flags = {name: _flag(name.replace("_", "-"), value) for name, value in chosen.items()}
    if plain := [flag for name, flag in flags.items() if name not in reasons]:
        notice(f"chosen for {command.source}: {' '.join(plain)}")
    if reasoned := {flag: reasons[name] for name, flag in flags.items() if name in reasons}:
        width = max(map(len, reasoned))
        lines = [f"  {flag:<{width}}  {reason}" for flag, reason in reasoned.items()]
        notice("\n".join([f"chosen for {command.source}:", *lines]))
    return RunConfig(
        # A run folder must find its data again from wherever it is resumed.
        source=command.source
        if is_named(command.source)
        else str(Path(command.source).expanduser().resolve()),
        # So must it find a method of one's own.
        method=absolute_method(command.method),
        data=None if command.data is None else str(command.data.expanduser().resolve()),
        folders=command.folders,
        size=command.size,
        skip_bad=command.skip_bad,
        cache=None if command.cache is None else str(command.cache.expanduser().resolve()),
        memory=command.memory,
        split=split,
        method_options=options,
        train=train,
        augmentation=augmentation,
        vectors=command.vectors,
    )
