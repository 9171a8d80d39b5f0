"""Configure a run from a parsed ``daso train``: decide the options that are left open."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from daso.cli.terminal.arguments import folders_of
from daso.cli.training.command import OWN_METHOD, TrainRequest
from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.data.places import absolute_place, is_named
from daso.presets.benchmarks import PRESETS
from daso.presets.layers import (
    GIVEN,
    Decision,
    Layer,
    configuration,
    decide,
    describe,
    method_layers,
    take,
    values_of,
)
from daso.presets.sources import SOURCES, SourceDefaults
from daso.train.config import GROUPS, RunConfig
from daso.train.run_data import read_config

EMBEDDED = Layer(
    "embeddings",
    {"steps": 0, "weak_versions": 0, "strong_versions": 0},
    {"steps": "the mixture is fitted to the embeddings themselves, which need no training"},
)
"""For a readout of embeddings under a linear classifier."""
PROBE = Layer(
    "probe",
    {"threshold": 0.7},
    {"threshold": "a linear classifier on embeddings is seldom as sure as 0.95"},
)
"""For a linear classifier on embeddings, with ``--freeze``."""
RESOLVED = ("learning_rate", "schedule", "unlabeled_ratio")
"""Options whose last default is the method's."""


def absolute_method(name: str) -> str:
    """Return a method's name with absolute paths of custom parts, so a run finds them again."""
    parts = name.split("+")
    return "+".join(absolute_place(part) if ".py:" in part else part for part in parts)


def configure(request: TrainRequest, defaults: SourceDefaults) -> tuple[RunConfig, list[str]]:
    """Return the configuration of a new run, and texts that say what was chosen for it.

    The command line overrides the setting (a preset) or the source, which overrides the method.
    """
    command, given = request.command, Layer(GIVEN, request.options)
    # The split decides whether distributions differ, and that decides about the method.
    default_split = Layer(command.source, vars(defaults.split))
    split = take(SplitOptions, values_of(decide([default_split, given])))
    method, source = request.method, command.source
    preset = PRESETS.get(command.source)
    if preset is not None:
        source = preset.source
        preset = dataclasses.replace(preset, defaults=defaults).with_split(split)
        method = preset.method_for(method)
    recipe = Recipe.parse(method)
    known = recipe.hyperparameters()
    if preset is None:
        setting = defaults.layer(f"data {source}", method, recipe.method, split)
    else:
        setting = preset.layer(method, recipe.method)
    layers = [*method_layers(known), setting]
    train = request.train
    if train.freeze and train.embedding_network == "probe" and "threshold" in known:
        layers.append(PROBE)
    if train.freeze and train.embedding_network in ("probe", "linear") and recipe.readout:
        layers.append(EMBEDDED)
    decisions = decide([*layers, given])

    chosen: dict[str, Decision] = {}
    if method != request.method:
        chosen["method"] = Decision(method, command.source)
    elif method == OWN_METHOD and not command.method and command.source not in SOURCES:
        reason = "the mixture reads the unlabeled images; la makes rare classes count like others"
        chosen["method"] = Decision(method, command.source, reason)
    choosers = (setting.decided_by, PROBE.decided_by, EMBEDDED.decided_by)
    chosen |= {n: d for n, d in decisions.items() if d.decided_by in choosers}
    switches = {name for name, parameter in known.items() if parameter.annotation is bool}
    config = configuration(
        source if is_named(source) else absolute_place(source),
        absolute_method(method),
        decisions,
        data=command.data and absolute_place(command.data),
        folders=folders_of(command),
        size=command.size,
        skip_bad=command.skip_bad,
        cache=command.cache and absolute_place(command.cache),
        memory=command.memory,
    )
    return config, describe(chosen, f"chosen for {command.source}", switches)


def configure_like(run: Path, request: TrainRequest) -> RunConfig:
    """Return the configuration of an earlier run, changed by the options that are given.

    With another method, hyper-parameters that it has too are kept, and what the run's method
    decided for the training is open again.
    """
    command = request.command
    config = read_config(run, command.data)
    method = absolute_method(request.method)
    recipe = Recipe.parse(method)
    known = recipe.hyperparameters()
    values = {n: v for n, v in config.method_options.items() if n in known}
    for group in GROUPS:
        values |= vars(getattr(config, group))
    if method != config.method:
        before = Recipe.parse(config.method).method
        values |= {n: None for n in RESOLVED if values[n] == getattr(before, n)}
    decisions = decide(
        [*method_layers(known), Layer(str(run), values), Layer(GIVEN, request.options)]
    )
    places: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("data", "folders", "size", "skip_bad", "cache", "memory")
    }
    places |= {n: request.given[n] for n in ("size", "skip_bad", "memory") if n in request.given}
    if command.cache is not None:
        places["cache"] = absolute_place(command.cache)
    places["journal"] = None if command.journal else 0
    return configuration(config.source, method, decisions, **places)
