"""The images of a training: how they are read, and what they decide for open options."""

from __future__ import annotations

import dataclasses

from daso.cli.terminal.arguments import folders_of
from daso.cli.terminal.counters import decoding_progress, download_progress
from daso.cli.training.command import TrainRequest
from daso.data.images.cache import Cache
from daso.data.open import open_source
from daso.data.places import NAMES
from daso.data.source import Source
from daso.presets.benchmarks import PRESETS
from daso.presets.own_data import choose_for
from daso.presets.sources import CPU_SIZE, SOURCES, SourceDefaults
from daso.train.encoder.pretrained import ENLARGED, choose_resolution, is_pretrained
from daso.train.options import TrainOptions
from daso.train.step.state import choose_device


def read_source(request: TrainRequest) -> Source:
    """Read the images that a command line names."""
    command = request.command
    preset, cache = PRESETS.get(command.source), None
    if command.cache is not None:
        cache = Cache(command.cache.expanduser(), decoding_progress())
    train, named = request.train, command.source in (*NAMES, *PRESETS)
    is_slow = choose_device(train.device).type == "cpu" and not is_pretrained(train)
    return open_source(
        command.source if preset is None else preset.source,
        data=command.data,
        folders=folders_of(command),
        size=command.size,
        skip_bad=command.skip_bad,
        download=command.download,
        progress=download_progress(),
        cache=cache,
        largest_side=CPU_SIZE if is_slow and not named else None,
        journal=None if command.journal else 0,
    )


def defaults_for(request: TrainRequest, source: Source) -> SourceDefaults:
    """Return what the setting, the named source or the data decides for open options."""
    known = SOURCES | {name: preset.defaults for name, preset in PRESETS.items()}
    defaults = known.get(request.command.source)
    if defaults is None:
        defaults = choose_for(source, choose_device(request.train.device))
    return with_resolution(request.train, source, defaults)


def with_resolution(
    train: TrainOptions, source: Source, defaults: SourceDefaults
) -> SourceDefaults:
    """Return defaults with the side at which a pretrained encoder sees its images, if there is one.

    Without an accelerator small images are not enlarged to the encoder's own side.
    """
    if not is_pretrained(train) or source.train.images.ndim != 4:
        return defaults
    options = {n: v for n, v in defaults.options.items() if n != "resolution"}
    reasons, side = dict(defaults.reasons), None
    if choose_device(train.device).type == "cpu":
        side = choose_resolution(train, max(source.train.images.shape[2:]))
    if side is not None:
        options["resolution"] = side.chosen
        reasons["resolution"] = (
            f"{ENLARGED} times the images' side instead of the encoder's {side.own}, which would "
            f"take {(side.own / side.chosen) ** 2:.2g} times as long on a CPU for slightly better "
            "answers"
        )
    return dataclasses.replace(defaults, options=options, reasons=reasons)
