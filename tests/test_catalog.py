"""What the catalog reads from the sources is what the classes say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daso import catalog, compose
from daso.compose import Recipe
from daso.errors import OptionError


@pytest.mark.parametrize("method", list(catalog.METHODS))
def test_hyperparameters_are_those_of_the_composed_method(method: str) -> None:
    names = [method]
    for addition in {**catalog.LOSSES, **catalog.REFINERS, **catalog.TERMS}:
        try:
            Recipe.parse(f"{method}+{addition}")
        except OptionError:
            continue
        names += [f"{method}+{addition}"] + [f"{method}+{addition}+la"] * (addition != "la")
    compared = 0
    for name in names:
        try:
            expected = Recipe.parse(name).hyperparameters()
        except OptionError:
            continue
        assert catalog.written_hyperparameters(name) == expected
        assert list(catalog.written_hyperparameters(name) or ()) == list(expected)
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize(
    "name",
    [
        "own.py:Mine",
        "fixmatch+own.py:Mine",
        "fixmatch+crest-plus",
        "fixmach",
        "fixmatch+ldam+class-balanced",
    ],
)
def test_what_the_sources_do_not_tell(name: str) -> None:
    assert catalog.written_hyperparameters(name) is None


def test_every_part_is_in_its_place() -> None:
    for table, base in (
        (compose.METHODS, compose.Method),
        (compose.LOSSES, compose.LabeledLoss),
        (compose.REFINERS, compose.Refiner),
        (compose.TERMS, compose.Term),
        (compose.PLANS, compose.Plan),
    ):
        assert table
        assert all(issubclass(part, base) for part in table.values())


def test_the_catalog_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys\nfrom daso.catalog import written_hyperparameters\n"
        "assert 'dist_temperature' in written_hyperparameters('fixmatch+la+daso')\n"
        "sys.exit(bool({'torch', 'numpy', 'tyro'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
