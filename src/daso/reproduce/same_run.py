"""What the run folders of a campaign must have in common with what is wanted, and with one another."""

from __future__ import annotations

import json
from pathlib import Path

from daso.compose import Recipe
from daso.errors import RunError
from daso.files import Row, flatten, read_json
from daso.train.config import RunConfig

SAME_DATA = {"split_fingerprint": "split", "images_fingerprints": "images"}
"""What in ``data.json`` all runs of a setting and a seed have in common, and what it is of."""


def is_complete(folder: Path) -> bool:
    """Tell whether a run folder has a whole summary; where it is damaged, the run is resumed and writes it anew."""
    try:
        return "accuracy" in read_json(folder / "summary.json")
    except RunError:
        return False


def saved_config(folder: Path) -> RunConfig:
    """Return the configuration that a run folder tells.

    Raises:
        RunError: it cannot be read; the message says what to do.
    """
    try:
        return RunConfig.read(folder)
    except RunError as error:
        raise RunError(f"{error}. Move {folder} away: then the run begins anew") from error


def differing_data(folder: Path, data: Row) -> str:
    """Return in words what of a run's data is not as in *data*, another one's ``data.json``; "" where nothing is.

    What one of them does not tell is passed over, as is a folder without a readable ``data.json``.
    """
    try:
        own = read_json(folder / "data.json")
    except RunError:
        return ""
    differences = []
    for key, what in SAME_DATA.items():
        there, here = own.get(key), data.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            pools = [name for name in there.keys() & here.keys() if there[name] and here[name]]
            changed = sorted(name for name in pools if there[name] != here[name])
            differences += [
                f"its {name} {what} are {there[name]} there, {here[name]}" for name in changed
            ]
        elif there and here and there != here:
            differences.append(f"its {what} is {there} there, {here}")
    return " and ".join(differences)


def check_same(config: RunConfig, saved: RunConfig, folder: Path) -> None:
    """Check that the run of a folder is of a configuration, whose open values it has worked out.

    Args:
        config: the wanted one.
        saved: the run's.
        folder: of the run.

    Raises:
        RunError: it is of another one; the message names the differences.
    """
    known = Recipe.parse(config.method).hyperparameters()
    defaults = {name: parameter.default for name, parameter in known.items()}
    wanted = flatten({**config.to_dict(), "method_options": {**defaults, **config.method_options}})
    found = flatten(saved.to_dict())
    elsewhere = ("data", "train.device")
    differences = [
        f"{name} is {json.dumps(found.get(name))} there and {json.dumps(value)} here"
        for name, value in wanted.items()
        if value is not None and name not in elsewhere and found.get(name) != value
    ]
    if differences:
        raise RunError(
            f"{folder} holds a run of another configuration: {'; '.join(differences)}. Move it away, or give "
            f"another folder with --out"
        )
