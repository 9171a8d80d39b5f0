"""Advice as cases of tables, done as it says; see ``helpers/advice.py``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from advice import do_as_advised, write_place

from tests.cli.advice_tables import training_data, training_options, verbs
from tests.conftest import Say

CASES = training_data.CASES | training_options.CASES | verbs.CASES


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("name", CASES)
def test_the_trouble_is_gone_after_doing_as_advised(
    name: str, place: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(shutil.copytree(place, tmp_path / "here"))
    do_as_advised(CASES[name], here, say, monkeypatch)


def test_every_case_has_a_name_of_its_own() -> None:
    tables = (training_data, training_options, verbs)
    assert len(CASES) == sum(len(table.CASES) for table in tables)
