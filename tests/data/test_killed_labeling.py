"""Labeling that is killed, at any moment, and repeated ends as if nobody had disturbed it."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import killed_runs
import pytest
from forked import finish, start
from label_sets import write_folder

from daso.data.journal import Entry, Journal, journal_path

PHASES = ("label", "apply", "undo", "apply")
KILLS = int(os.environ.get("DASO_KILLS", "4"))
"""Of each way to sort. More of them: DASO_KILLS=34 pytest -s tests/data/test_killed_labeling.py"""


def entries(folder: Path) -> list[Entry]:
    return [replace(entry, time="") for entry in Journal.read(journal_path(folder)).entries]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "daso-labels" not in path.name and path.name != "told"
    }


@pytest.mark.process
@pytest.mark.parametrize("how", ["", "links", "move"])
def test_killed_at_random_moments(tmp_path: Path, how: str) -> None:
    undisturbed = write_folder(tmp_path / "undisturbed")
    ends = []
    for phase in PHASES:
        assert finish(start(killed_runs.label_and_sort, undisturbed, phase, how, 0)) == 0
        ends.append((entries(undisturbed), files(undisturbed)))
    draw = random.Random()
    kills = sets = 0
    while kills < KILLS:
        folder = write_folder(tmp_path / f"photos-{sets}")
        images = set(files(folder).values())
        sets += 1
        for phase, expected in zip(PHASES, ends, strict=True):
            end = None
            while end != 0:
                process = start(killed_runs.label_and_sort, folder, phase, how, 0.01)
                (folder / "told").write_bytes(b"")
                there = len(entries(folder))
                if kills < KILLS and draw.random() < 0.7:  # so that all phases have some
                    target = there + draw.randrange(4)
                    while process.is_alive() and len(entries(folder)) < target:
                        time.sleep(0.001)
                    time.sleep(draw.uniform(0, 0.03 if target > there else 0.3))
                    process.kill()
                end = finish(process)
                assert end in (0, -signal.SIGKILL)
                kills += end != 0
                given, told = len(entries(folder)) - there, (folder / "told").stat().st_size
                assert phase != "label" or given in (told, told + 1), "a label is lost"
                assert images <= set(files(folder).values()), "an image is lost"
            assert entries(folder) == expected[0], "a label or a sorted file is lost or doubled"
            assert files(folder) == expected[1]
    print(f"{how or 'copy'}: {sets} sets of images, {kills} kills", end=" ")
