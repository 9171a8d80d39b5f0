"""Check that run folders of a campaign have the expected configuration and share their data."""

from __future__ import annotations

import json
from pathlib import Path

from daso.compose import Recipe
from daso.errors import RunError, named_key
from daso.files import Row, flatten, read_json
from daso.train.config import RunConfig

SHARED_DATA = {"split_fingerprint": "split", "images_fingerprints": "images"}
"""Keys of ``data.json`` that all runs of a setting and a seed share, and what they describe."""


def is_complete(folder: Path) -> bool:
    """Tell whether a run has a valid summary; a resumed run replaces a damaged one."""
    try:
        return "accuracy" in read_json(folder / "summary.json")
    except RunError:
        return False


def saved_config(folder: Path) -> RunConfig:
    """Return the configuration of a run folder; its errors say what to do."""
    try:
        return RunConfig.read(folder)
    except RunError as error:
        raise RunError(f"{error}. Move {folder} away, and the run starts again") from error


def differing_data(folder: Path, data: Row) -> str:
    """Describe how a run's data differs from *data*, another ``data.json``; "" if it does not.

    Keys that one of them lacks are ignored, as is a folder without a readable ``data.json``.
    """
    try:
        saved = flatten(read_json(folder / "data.json"))
    except RunError:
        return ""
    here = flatten(data)
    differences = []
    for name in sorted(saved.keys() & here.keys()):
        key, _, pool = name.partition(".")
        if key in SHARED_DATA and saved[name] and here[name] and saved[name] != here[name]:
            what = f"{pool} {SHARED_DATA[key]} are" if pool else f"{SHARED_DATA[key]} is"
            differences.append(f"its {what} {saved[name]} there, {here[name]}")
    return " and ".join(differences)


def check_same(config: RunConfig, saved: RunConfig, folder: Path) -> None:
    """Check that a run's *saved* configuration is the expected one, where that is not open.

    Raises:
        RunError: they differ; the message names the differences.
    """
    parameters = Recipe.parse(config.method).hyperparameters()
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    options = {**defaults, **config.method_options}
    expected = flatten({**config.to_dict(), "method_options": options})
    actual = flatten(saved.to_dict())
    differences = [
        f"{named_key(name)} is {json.dumps(actual.get(name))} there and {json.dumps(value)} here"
        for name, value in expected.items()
        if value is not None and name not in ("data", "train.device") and actual.get(name) != value
    ]
    if differences:
        raise RunError(
            f"{folder} holds a run of another configuration: {'; '.join(differences)}. Move it "
            "away, or use another folder with --out"
        )
