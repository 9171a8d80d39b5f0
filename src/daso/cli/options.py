"""Options of the command line from typed dataclasses and, for a method's, from its constructor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from daso.cli.shown import hint_of, placeholder, plain_text, shown
from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.data.open import NAMES, is_named
from daso.data.tars import absolute_place
from daso.errors import OptionError
from daso.presets.benchmarks import PRESETS
from daso.presets.sources import MISMATCH_TEMPERATURE, SourceDefaults
from daso.track import Kind
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.view_options import VectorViewOptions, ViewOptions

DEFAULT_METHOD = "fixmatch+daso"
"""Of the named data sets and of presets, whose tables it belongs to."""
OWN_METHOD = "fixmatch+la+daso"
"""Of people's own data: what tells rare classes best apart there, see LOG.md."""
PROBE_THRESHOLD = 0.7
"""A linear classifier on embeddings is seldom as sure as 95%."""
TRAIN_DEFAULTS = {field.name for field in dataclasses.fields(TrainOptions)}
SOURCE_DECIDES = {field.name for field in dataclasses.fields(SourceDefaults)}
VIEW_DEFAULTS = {field.name for field in dataclasses.fields(ViewOptions)}


@dataclass(frozen=True)
class TrainCommand:
    """Train an image classifier from few labelled and many unlabelled images."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = ""
    """The path of your own images: a folder, a manifest that lists them (CSV, TSV, JSON lines, parquet), arrays (.npz);
    or digits, fashion-mnist, cifar10, cifar100, stl10, semi-aves, semi-aves-open; a preset (daso presets); hf:NAME, a
    data set of the Hugging Face hub."""
    out: Path | None = None
    """Folder of the run (default: runs/SOURCE-METHOD-1, -2, ...)."""
    like: Path | None = None
    """Repeat the run of this folder, but for the options that are given; instead of SOURCE. What differs is said."""
    method: str = ""
    """A method and what is added to it, such as fixmatch+la+daso (daso methods lists them), or one of your own,
    file.py:Class. Its hyper-parameters are options too (default: fixmatch+daso for named sources,
    fixmatch+la+daso for your own data)."""
    data: Path | None = None
    """Where the files of a named source are; of a manifest, the folder that its paths start in and may not leave
    (default: its own)."""
    labeled: Path | None = None
    """Folder of labelled images, in a folder for each class; instead of SOURCE."""
    unlabeled: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|TARS")] = None
    """Folder of unlabelled images, at any depth, if they are elsewhere; or tar shards: a folder of them, a pattern such
    as 'shards/{000..127}.tar', or an address such as 's3://bucket/{000..127}.tar'."""
    val: Path | None = None
    """Folder of validation images, in a folder for each class, if they are elsewhere."""
    test: Path | None = None
    """Folder of test images, in a folder for each class, if they are elsewhere."""
    size: int | None = None
    """Side in pixels to which the images of a folder are resized (default: chosen from the images; semi-aves:
    224)."""
    skip_bad: bool = False
    """Go on without what cannot be used, and list it: images that cannot be read, labelled images with several labels,
    test images that are labelled images too, rows of a manifest that are wrong."""
    cache: Path | None = None
    """Folder that keeps decoded images: the next training starts at once, and a pool that is larger than the memory
    is read from there as it is needed."""
    memory: float | None = None
    """GB that images of the cache may take in memory (default: half of what is free)."""
    download: bool = False
    """Fetch a named source's files if they are missing."""
    track: tyro.conf.UseAppendAction[tuple[Kind, ...]] = ()
    """Send the numbers to a tracker too; may be given again for another one."""
    quiet: bool = False
    """Show only warnings while it trains, and the result."""
    split: SplitOptions = dataclasses.field(default_factory=SplitOptions)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    augmentation: ViewOptions = dataclasses.field(default_factory=ViewOptions)
    vectors: VectorViewOptions = dataclasses.field(default_factory=VectorViewOptions)

    @property
    def folders(self) -> dict[str, str]:
        """Where parts of an image folder are, by their names, that are not in it."""
        given = {"unlabeled": self.unlabeled, "val": self.val, "test": self.test}
        return {name: absolute_place(folder) for name, folder in given.items() if folder is not None}


GROUPS: dict[str, type[Any]] = {
    "split": SplitOptions,
    "train": TrainOptions,
    "augmentation": ViewOptions,
    "vectors": VectorViewOptions,
}
"""Fields of a command whose options stand beside its own."""


def named_method(argv: Sequence[str]) -> str:
    """Return the value of ``--method``, or else the source's default: it decides which further options there are."""
    method = DEFAULT_METHOD if {*argv} & {*NAMES, *PRESETS} else OWN_METHOD
    for index, argument in enumerate(argv):
        if argument == "--method" and index + 1 < len(argv):
            method = argv[index + 1]
        elif argument.startswith("--method="):
            method = argument.partition("=")[2]
    return method


def parse_train(argv: Sequence[str]) -> tuple[TrainCommand, dict[str, Any]]:
    """Parse ``daso train``'s arguments into its command and the method's hyper-parameters.

    Raises:
        OptionError: the method is unknown.
        SystemExit: help was asked for, or an option is wrong; tyro names the nearest one.
    """
    known = Recipe.parse(named_method(argv)).hyperparameters()
    kinds: list[Any] = [TrainCommand, *GROUPS.values()]
    taken = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    fields: list[Any] = []
    for name, parameter in known.items():
        if name in taken:
            raise OptionError(
                f"{parameter.part} has a hyper-parameter {name!r}, and so has every training: rename it"
            )
        description = plain_text(f"{parameter.part}: {parameter.help}")
        argument = tyro.conf.arg(
            help=description,
            help_behavior_hint=hint_of(description, _decided(name, parameter.default)),
            metavar=placeholder(parameter.annotation),
        )
        kind: Any = Annotated[parameter.annotation, argument]
        fields.append((name, kind, dataclasses.field(default=parameter.default)))
    hyperparameters = dataclasses.make_dataclass("Hyperparameters", fields, frozen=True)
    hyperparameters.__doc__ = f"Hyper-parameters of {named_method(argv)}."
    groups = {}
    for name, group in GROUPS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(group)}
        ends = {
            field: text for field, value in defaults.items() if (text := _decided(field, value)) is not None
        }
        groups[name] = shown(group, decided=ends)
    command = shown(TrainCommand, {**groups, "hyperparameters": hyperparameters})
    parsed: Any = tyro.cli(command, args=list(argv), prog="daso train")
    plain = {
        name: kind(**{f.name: getattr(getattr(parsed, name), f.name) for f in dataclasses.fields(kind)})
        for name, kind in GROUPS.items()
    }
    own: dict[str, Any] = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(TrainCommand)}
    own["method"] = named_method(argv)
    if bool(own["source"]) == (own["labeled"] is not None):
        raise OptionError(
            "name a SOURCE to train on, or --labeled FOLDER (and perhaps --unlabeled FOLDER)"
            + ("; not both" if own["source"] else "; 'daso train --help' lists all options")
        )
    own["source"] = own["source"] or str(own["labeled"])
    return TrainCommand(**{**own, **plain}), dataclasses.asdict(parsed.hyperparameters)


def _decided(name: str, default: Any) -> str | None:
    """Return how help speaks of a default that a source may decide otherwise; None where none does."""
    if name not in SOURCE_DECIDES or default is None:
        return None
    return f"{default}, or chosen for the data and printed"


def _given(argv: Sequence[str], option: str) -> bool:
    return any(argument.partition("=")[0].replace("_", "-") == option for argument in argv)


def _flag(option: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def absolute_method(name: str) -> str:
    """Return a method's name with whole paths of the parts of one's own."""
    parts = name.split("+")
    return "+".join(str(Path(part).expanduser().resolve()) if ".py:" in part else part for part in parts)


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
    if not recipe.method.unlabeled_views:
        defaults = defaults.without_unlabeled()
    if _given(argv, "--steps"):
        defaults = dataclasses.replace(defaults, warmup_steps=None, evaluate_every=None)
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
        if split.unlabeled_head is not None and split.gamma_labeled != split.gamma_unlabeled:
            value = min(value, MISMATCH_TEMPERATURE)
        options["dist_temperature"] = chosen["dist_temperature"] = value
    probed = train.freeze and train.embedding_network == "probe"
    if probed and "threshold" in known and not _given(argv, "--threshold"):
        options["threshold"] = chosen["threshold"] = PROBE_THRESHOLD
    flags = {name: _flag(name.replace("_", "-"), value) for name, value in chosen.items()}
    if plain := [flag for name, flag in flags.items() if name not in defaults.reasons]:
        notice(f"chosen for {command.source}: {' '.join(plain)}")
    if reasoned := {flag: defaults.reasons[name] for name, flag in flags.items() if name in defaults.reasons}:
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
