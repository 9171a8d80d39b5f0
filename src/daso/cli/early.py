"""What can be refused in a moment, before torch is imported: paths that do not exist, misspelt names and devices."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from daso.catalog import ADDITIONS, METHODS
from daso.errors import DataError, OptionError, RunError, nearest

RUN_VERBS = ("resume", "evaluate", "validate", "export", "report", "plot")
"""Their first argument is a run folder."""
DEVICES = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"}
"""What people call devices, and what torch does."""
FOLDERS = ("labeled", "val", "test")
"""Options whose value is a folder, whatever is trained on."""


def refuse_early(verb: str, argv: Sequence[str]) -> None:
    """Refuse a command that cannot be meant, as far as this can be told at once; what passes is checked again later.

    Raises:
        DasoError: with the words in which it would be refused later.
    """
    if {"-h", "--help"} & {*argv}:
        return
    given = _values(argv)
    first = argv[0] if argv and not argv[0].startswith("-") else None
    if (device := given.get("device")) is not None:
        _check_device(device)
    if verb in RUN_VERBS and first is not None:
        _check_run(Path(first))
    if verb == "predict" and first is not None and not Path(first).exists():
        raise RunError(
            f"{first} does not exist: name a run folder, or a file that daso export wrote"
        )
    if verb == "train":
        if "like" in given:
            _check_run(Path(given["like"]))
        if "method" in given:
            _check_method(given["method"])
        for name in (
            FOLDERS[1:] if first is not None else FOLDERS
        ):  # a source and --labeled are refused as such
            if name in given and not Path(given[name]).expanduser().is_dir():
                raise DataError(f"--{name} {given[name]}: there is no such folder")
        if first is not None:
            _check_source(first)


def _values(argv: Sequence[str]) -> dict[str, str]:
    """Return the values of options by name; of a flag without one, whatever follows it."""
    values = {}
    for index, argument in enumerate(argv):
        name, sign, value = argument.partition("=")
        if not name.startswith("--"):
            continue
        if not sign:
            value = argv[index + 1] if index + 1 < len(argv) else ""
        if value:
            values[name[2:].replace("_", "-")] = value
    return values


def _check_device(device: str) -> None:
    if device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
        meant = DEVICES.get(device.partition(":")[0].lower())
        hint = (
            f" Did you mean {meant!r}?"
            if meant
            else nearest(device, ("auto", "cpu", "cuda", "mps"))
        )
        raise OptionError(
            f"unknown device {device!r}; there are cpu, cuda, cuda:1, mps, and auto, the first accelerator there is."
            f"{hint}"
        )


def _check_run(folder: Path) -> None:
    if not folder.exists():
        raise RunError(f"{folder} is no run folder: it does not exist")
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} is no run folder: it has no config.json")


def _check_method(method: str) -> None:
    for number, part in enumerate(method.split("+")):
        if ":" in part or "+" in method.rpartition(":")[0]:
            return  # one's own
        known = ADDITIONS if number else METHODS
        if part in known:
            continue
        hint = nearest(part, known)
        if part in METHODS:
            hint = " It is a method of its own."
        elif part in ADDITIONS:
            hint = " It is a part to add to a method."
        raise OptionError(
            f"unknown {'part' if number else 'method'} {part!r}; there are {', '.join(known)}.{hint}"
        )


def _check_source(source: str) -> None:
    if source.startswith("hf:") or Path(source).expanduser().exists():
        return
    names: tuple[str, ...] = importlib.import_module("daso.data.open").NAMES
    presets = importlib.import_module("daso.presets.benchmarks")
    if source in names or source in presets.PRESETS:
        return
    hint = presets.meant(source, names)
    raise (OptionError if hint else DataError)(
        f"{source!r} is neither a file or folder that exists, nor a data set's name ({', '.join(names)}), nor a "
        f"preset's (see daso presets).{hint}"
    )
