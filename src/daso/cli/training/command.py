"""Options of the command line from typed dataclasses and, for a method's, from its constructor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from daso.catalog import parts_with
from daso.cli.terminal.parse import hint_of, placeholder, plain_text, refuse_choices, shown
from daso.compose import Recipe
from daso.data.formats.tar_shards import absolute_place
from daso.data.longtail import SplitOptions
from daso.data.open import NAMES
from daso.errors import OptionError
from daso.presets.benchmarks import PRESETS
from daso.presets.sources import SourceDefaults
from daso.track import Kind
from daso.train.options import TrainOptions
from daso.train.view_options import VectorViewOptions, ViewOptions

DEFAULT_METHOD = "fixmatch+daso"
"""Of the named data sets and of presets, whose tables it belongs to."""
OWN_METHOD = "fixmatch+la+daso"
"""Of people's own data: what tells rare classes best apart there, see LOG.md."""
SOURCE_DECIDES = {field.name for field in dataclasses.fields(SourceDefaults)}


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
        return {
            name: absolute_place(folder) for name, folder in given.items() if folder is not None
        }


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


def given_options(argv: Sequence[str]) -> set[str]:
    """Return the names of the options on a command line, with underscores and without ``no-``."""
    flags = (argument.partition("=")[0][2:] for argument in argv if argument.startswith("--"))
    return {flag.removeprefix("no-").replace("-", "_") for flag in flags}


def parse_train(argv: Sequence[str]) -> tuple[TrainCommand, dict[str, Any]]:
    """Parse ``daso train``'s arguments into its command and the method's hyper-parameters.

    Raises:
        OptionError: a part of the method is unknown or does not fit the others, an option belongs to
            other methods, or a value is an invalid choice.
        SystemExit: help was asked for, or an option is wrong; tyro names the nearest one.
    """
    known = Recipe.parse(named_method(argv)).hyperparameters()
    kinds: list[Any] = [TrainCommand, *GROUPS.values()]
    taken = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    _refuse_others(argv, taken | {*known})
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
    annotations = {name: parameter.annotation for name, parameter in known.items()}
    for kind in kinds:
        annotations |= get_type_hints(kind, include_extras=True)
    refuse_choices(annotations, argv)
    hyperparameters = dataclasses.make_dataclass("Hyperparameters", fields, frozen=True)
    hyperparameters.__doc__ = f"Hyper-parameters of {named_method(argv)}."
    groups = {}
    for name, group in GROUPS.items():
        defaults = {field.name: field.default for field in dataclasses.fields(group)}
        ends = {
            field: text
            for field, value in defaults.items()
            if (text := _decided(field, value)) is not None
        }
        groups[name] = shown(group, decided=ends)
    command = shown(TrainCommand, {**groups, "hyperparameters": hyperparameters})
    parsed: Any = tyro.cli(command, args=list(argv), prog="daso train")
    plain = {
        name: kind(
            **{f.name: getattr(getattr(parsed, name), f.name) for f in dataclasses.fields(kind)}
        )
        for name, kind in GROUPS.items()
    }
    own: dict[str, Any] = {
        f.name: getattr(parsed, f.name) for f in dataclasses.fields(TrainCommand)
    }
    own["method"] = named_method(argv)
    if bool(own["source"]) == (own["labeled"] is not None):
        raise OptionError(
            "name a SOURCE to train on, or --labeled FOLDER (and perhaps --unlabeled FOLDER)"
            + ("; not both" if own["source"] else "; 'daso train --help' lists all options")
        )
    own["source"] = own["source"] or str(own["labeled"])
    return TrainCommand(**{**own, **plain}), dataclasses.asdict(parsed.hyperparameters)


def _refuse_others(argv: Sequence[str], known: set[str]) -> None:
    """Refuse an option that other methods have and this one has not, and say which."""
    if {"-h", "--help"} & {*argv}:
        return
    found = {
        name: parts for name in sorted(given_options(argv) - known) if (parts := parts_with(name))
    }
    if found:
        where = "; ".join(
            f"--{name.replace('_', '-')}: {', '.join(parts)}" for name, parts in found.items()
        )
        raise OptionError(
            f"{named_method(argv)} has no {' and no '.join('--' + name.replace('_', '-') for name in found)}; "
            f"methods and parts that have it: {where} ('daso methods NAME' shows each)"
        )


def _decided(name: str, default: Any) -> str | None:
    """Return how help speaks of a default that a source may decide otherwise; None where none does."""
    if name not in SOURCE_DECIDES or default is None:
        return None
    return f"{default}, or chosen for the data and printed"
