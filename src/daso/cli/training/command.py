"""``daso train``'s arguments: parsed once, checked before torch is imported."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from daso.catalog import Hyperparameter, parts_with
from daso.cli.terminal.arguments import Folder, check_run_folder
from daso.cli.terminal.parse import (
    Argument,
    Group,
    Option,
    default_text,
    options_of,
    parse_given,
    plain_text,
)
from daso.compose import Recipe
from daso.data.places import NAMES, is_named
from daso.errors import DataError, OptionError, Range, flag
from daso.files import leads_somewhere
from daso.presets.benchmarks import PRESETS, meant
from daso.presets.layers import take
from daso.track import Kind
from daso.train.config import GROUPS, RunConfig
from daso.train.options import TrainOptions

DEFAULT_METHOD = "fixmatch+daso"
"""Method for named data sets and presets."""
OWN_METHOD = "supervised+la+mixture"
"""Method for your own data, where it recognizes rare classes best in minutes (LOG.md)."""
REPEAT = "nothing is trained yet, and the same command starts again"
"""What to do after a stop before the first step."""
SOURCE_DECIDES = {
    *("steps", "batch", "precision", "deploy", "weight_decay", "ema_decay", "crop"),
    *("dist_temperature", "histogram_period", "queue_length", "queue_batch_statistics"),
    *("generations", "crest_power"),
}
"""Options whose default may be another one for some data, which is printed."""


@dataclass(frozen=True)
class TrainCommand:
    """Train an image classifier from few labeled and many unlabeled images."""

    source: Annotated[str, Argument("SOURCE", positional=True)] = ""
    """The path of your images: a folder, a manifest that lists them (CSV, TSV, JSON lines,
    parquet), arrays (.npz); or digits, fashion-mnist, cifar10, cifar100, stl10, semi-aves,
    semi-aves-open; a preset (daso presets); hf:NAME, a data set of the Hugging Face hub."""
    out: Path | None = None
    """Folder of the run (default: runs/SOURCE-METHOD-1, -2, ...)."""
    like: Path | None = None
    """Repeat an earlier run; options given here override it. Differences are printed. Replaces
    SOURCE."""
    method: str = ""
    """A method and the parts to add to it, such as fixmatch+la+daso (daso methods lists them), or
    a custom one, file.py:Class. Its hyper-parameters are options too (default: fixmatch+daso for
    named sources, supervised+la+mixture for your own data)."""
    data: Path | None = None
    """Folder of a named source's files; for a manifest, the folder that its paths start in and may
    not leave (default: its own)."""
    labeled: Folder | None = None
    """Folder of labeled images, with one folder per class. Replaces SOURCE."""
    unlabeled: Annotated[str | None, Argument("FOLDER|TARS")] = None
    """Folder of unlabeled images, at any depth, if they are elsewhere; or tar shards: a folder of
    them, a pattern such as 'shards/{000..127}.tar', or an address such as
    's3://bucket/{000..127}.tar'."""
    val: Folder | None = None
    """Folder of validation images, with one folder per class, if they are elsewhere."""
    test: Folder | None = None
    """Folder of test images, with one folder per class, if they are elsewhere."""
    size: Annotated[int, Range(1)] | None = None
    """Side in pixels to which the images of a folder are resized (default: chosen from the images;
    semi-aves: 224)."""
    skip_bad: bool = False
    """Leave out and list what cannot be used: unreadable images, labeled images with several
    labels, test images that are labeled images too, invalid rows of a manifest."""
    journal: bool = True
    """Use the labels that were given in the page of daso label."""
    cache: Path | None = None
    """Folder that keeps decoded images: the next training starts at once, and images that do not
    fit in memory are read from there."""
    memory: Annotated[float, Range(0)] | None = None
    """GB of memory for images of the cache (default: half of what is free)."""
    download: bool = False
    """Download a named source's files if they are missing."""
    track: Annotated[tuple[Kind, ...], Argument(repeated=True)] = ()
    """Send the numbers to a tracker too; repeat the option for several trackers."""
    quiet: bool = False
    """Show only warnings during the training, and the result."""


COMMAND_OPTIONS = frozenset(field.name for field in dataclasses.fields(TrainCommand))


@dataclass(frozen=True)
class TrainRequest:
    """What a ``daso train`` command line asks for.

    Attributes:
        method: as given, or the default for the source.
        given: the value of every option that was given, by name.
    """

    command: TrainCommand
    method: str
    given: Mapping[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the split, the training, the views and the method that were given."""
        return {name: value for name, value in self.given.items() if name not in COMMAND_OPTIONS}

    @property
    def train(self) -> TrainOptions:
        """The training's options that were given, with general defaults for the others."""
        options: TrainOptions = take(TrainOptions, self.given)
        return options

    def on_device(self, device: str) -> TrainRequest:
        return dataclasses.replace(self, given={**self.given, "device": device})


def parse_train(argv: Sequence[str]) -> TrainRequest:
    """Parse ``daso train``'s arguments.

    Raises:
        DasoError: a path does not exist, the method does not have an option, or a value is
            invalid. Whether the parts of the method fit together is not checked.
        SystemExit: help was asked for.
    """
    # The method decides which options there are, so it must be known before they are parsed.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--method", nargs="?")
    first.add_argument("--like", nargs="?", type=Path)
    named, _ = first.parse_known_args(argv)
    run = None
    if named.like is not None:
        check_run_folder("like", named.like)
        run = RunConfig.read(named.like)
    method = named.method or (run.method if run is not None else OWN_METHOD)
    known = Recipe.parse(method).hyperparameters()
    undecided = run is None and not named.method  # until the source is parsed
    if undecided:
        known = {**Recipe.parse(DEFAULT_METHOD).hyperparameters(), **known}
    both = f"{DEFAULT_METHOD} (named sources) and {method} (your own data)"
    groups = _groups(both if undecided else method, known)
    refuse = partial(_refuse_others, method=method)
    given = parse_given(TrainCommand, argv, "daso train", groups, refuse)
    command: TrainCommand = take(TrainCommand, given)
    for kind in GROUPS.values():
        take(kind, given)  # which checks the values
    command = dataclasses.replace(command, source=_source(command, run))
    if undecided:
        if command.source in (*NAMES, *PRESETS):
            method = DEFAULT_METHOD
        lacking = (known.keys() & given.keys()) - Recipe.parse(method).hyperparameters().keys()
        _refuse_others(lacking, method)
    Recipe.parse(method).check_readout(given.get("steps"))
    return TrainRequest(command, method, given)


def _source(command: TrainCommand, run: RunConfig | None) -> str:
    ways = {"SOURCE": command.source, "--labeled": command.labeled, "--like": command.like}
    given = [way for way, value in ways.items() if value]
    if not given:
        raise OptionError(
            "name a SOURCE to train on, or --labeled FOLDER (and perhaps --unlabeled FOLDER); "
            "'daso train --help' lists all options"
        )
    if run is not None:
        for part in ("labeled", "unlabeled", "val", "test"):
            if getattr(command, part) is not None:
                raise OptionError(
                    f"--like trains on the images of {command.like}: omit --{part}, or use --data"
                )
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} both name the images: leave one out, not both")
    if run is not None:
        return run.source
    if command.source:
        _check_source(command.source)
    return command.source or str(command.labeled)


def _check_source(source: str) -> None:
    if is_named(source) or source in PRESETS or leads_somewhere(Path(source)):
        return
    hint = meant(source, NAMES)
    raise (OptionError if hint else DataError)(
        f"{source!r} is neither a file or folder that exists, nor the name of a data set "
        f"({', '.join(NAMES)}) or of a preset (daso presets lists them).{hint}"
    )


def _groups(method: str, known: Mapping[str, Hyperparameter]) -> dict[str, Group]:
    """Return the options beside the command's own, in the groups that help shows."""
    groups = {name: Group(kind.__doc__ or "", options_of(kind)) for name, kind in GROUPS.items()}
    taken = COMMAND_OPTIONS.union(*(group.options for group in groups.values()))
    options = {}
    for name, parameter in known.items():
        if name in taken:
            raise OptionError(
                f"{parameter.part} has a hyper-parameter {name!r}, as has every training: rename it"
            )
        help_text = plain_text(f"{parameter.part}: {parameter.help}")
        options[name] = Option(parameter.annotation, help_text, default_text(parameter.default))
    groups["hyperparameters"] = Group(f"Hyper-parameters of {method}.", options)
    for group in groups.values():
        for name in SOURCE_DECIDES & group.options.keys():
            if text := group.options[name].default:
                text = f"{text}, or chosen for the data and printed"
                group.options[name] = dataclasses.replace(group.options[name], default=text)
    return groups


def _refuse_others(names: set[str], method: str) -> None:
    """Refuse options that other methods have and this one has not, and say which have them."""
    parts = {name: having for name in sorted(names) if (having := parts_with(name))}
    if parts:
        where = "; ".join(f"{flag(name)}: {', '.join(having)}" for name, having in parts.items())
        raise OptionError(
            f"{method} has no {' and no '.join(map(flag, parts))}; methods and parts that have it: "
            f"{where} ('daso methods NAME' shows each)"
        )
