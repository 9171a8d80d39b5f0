"""``daso data check``: check a data set before training."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daso.cli.terminal.arguments import folders_of
from daso.cli.terminal.counters import counter
from daso.cli.terminal.parse import Argument, parse
from daso.data.places import NAMES
from daso.errors import DataError, OptionError, nearest
from daso.files import plain
from daso.presets.sources import CPU_SIZE

SHOWN = 5
"""Images listed for a finding without --all."""


@dataclass(frozen=True)
class CheckCommand:
    """Check a data set before training: classes, sizes, unreadable images, copies, test leaks.

    The exit status is 1 if training would refuse the data.
    """

    source: Annotated[str, Argument("SOURCE", positional=True)] = ""
    """A folder, a manifest, an .npz file or the name of a data set, as for daso train."""
    data: Path | None = None
    """Folder of a named source's files, or the folder that holds all images of a manifest."""
    labeled: Path | None = None
    """Folder of labeled images, with a folder for each class. Replaces SOURCE."""
    unlabeled: Annotated[str | None, Argument("FOLDER|TARS")] = None
    """Folder or tar shards of unlabeled images, if elsewhere; see daso train --help."""
    val: Path | None = None
    """Folder of validation images, if elsewhere."""
    test: Path | None = None
    """Folder of test images, if elsewhere."""
    size: int | None = None
    """Side of the images in pixels, as for daso train; images are compared at that size."""
    download: bool = False
    """Fetch missing files of a named source."""
    all: bool = False
    """List every image of a finding, not only the first few."""
    json: bool = False
    """Print everything as JSON."""


def run(argv: Sequence[str]) -> int:
    """Run the command; return 1 if training would refuse the data."""
    verb = argv[0] if argv else ""
    if verb in ("-h", "--help", ""):
        print("usage: daso data check SOURCE [OPTIONS]\n\nCheck a data set before training.")
        return 0 if verb else 2
    if verb != "check":
        raise OptionError(f"unknown command: data {verb}; use check.{nearest(verb, ['check'])}")
    command = parse(CheckCommand, argv[1:], "daso data check")
    if bool(command.source) == (command.labeled is not None):
        raise OptionError("give either SOURCE or --labeled FOLDER")
    source = command.source or str(command.labeled)
    from daso.cli.terminal.findings import show_report
    from daso.cli.terminal.tables import wide_console
    from daso.data.check.report import check_data
    from daso.data.listing import Reading

    try:
        reading = Reading(
            command.size,
            None if command.size or source in NAMES else _largest_side(),
            data=command.data,
            folders=folders_of(command),
            download=command.download,
        )
        report = check_data(source, reading, counter("read", "images"))
    except DataError as error:
        if not command.json:
            raise
        print(json.dumps({"source": source, "would_train": False, "error": str(error)}, indent=1))
        return 1
    if command.json:
        print(json.dumps(plain(report.to_dict()), indent=1))
    else:
        show_report(report, wide_console(), None if command.all else SHOWN)
    return 1 if report.refused else 0


def _largest_side() -> int | None:
    # torch is imported only here, to look for an accelerator.
    device = importlib.import_module("daso.train.step.state").choose_device("auto")
    return CPU_SIZE if device.type == "cpu" else None
