"""Arguments that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from daso.cli.terminal.parse import Argument
from daso.constraints import Checked
from daso.data.places import absolute_place
from daso.errors import DataError, RunError, flag
from daso.files import leads_somewhere


def check_run_folder(name: str, folder: Path) -> None:
    """Raise a ``RunError`` if a folder has no configuration."""
    if not leads_somewhere(folder / "config.json"):
        reason = "it has no config.json" if leads_somewhere(folder) else "it does not exist"
        reason = "it is a file" if folder.is_file() else reason
        raise RunError(f"{folder} is not a run folder: {reason}")


def check_folder(name: str, folder: Path) -> None:
    """Raise a ``DataError`` if a folder does not exist."""
    if not (leads_somewhere(folder) and folder.expanduser().is_dir()):
        raise DataError(f"{flag(name)} {folder}: no such folder; check the path")


RunArgument = Annotated[Path, Argument("RUN", positional=True), Checked(check_run_folder)]
Folder = Annotated[Path, Checked(check_folder)]


def folders_of(command: Any) -> dict[str, str]:
    """Return the places of the parts of an image folder that are elsewhere, by part."""
    places = {part: getattr(command, part) for part in ("unlabeled", "val", "test")}
    return {part: absolute_place(place) for part, place in places.items() if place is not None}
