"""Advice as cases of a table: a command, what it advises, and the command that does as advised."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from label_sets import write_folder
from made_files import png, write_image

from daso.cli import main
from daso.data.images import memory
from tests.conftest import Say

TRAIN = "train photos --method supervised --size 8 --out new"
FIXMATCH = "train photos --method fixmatch --size 8 --out new"
QUICK = {"--network": "small-4", "--steps": "2", "--batch": "4", "--device": "cpu"}
"""Options of every training that does not give others."""


class Case(NamedTuple):
    """One piece of advice.

    Attributes:
        before: the command that meets a refusal, a note or a finding.
        advice: pattern of what is said; what is in its groups is put in the place of {0}, {1} ...
        after: the command that does as advised, of which *advice* is no longer said; or a function
            that does what is to be done before, and returns the command.
        then: pattern of what is said afterwards.
        status: of the command afterwards.
        prepare: is called before; what it patches is so until the command that does as advised.
    """

    before: str
    advice: str
    after: str | Callable[[], str]
    then: str = ""
    status: int = 0
    prepare: Callable[[pytest.MonkeyPatch], object] = lambda patch: None


def little_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "available_memory", lambda: 6_000)


def trained(*words: str) -> None:
    method = ["--method", "supervised", "--size", "8"]
    assert main(["train", *words, *method, *quick(" ".join(words))]) == 0


def write_place(place: Path) -> Path:
    """Write a folder with image folders and a ``run``; return it."""
    photos = write_folder(place / "photos")
    for name in ("bare", "damaged", "leak", "stray"):
        shutil.copytree(photos, place / name)
    shutil.rmtree(place / "bare" / "unlabeled")
    for number in range(7):
        (place / "damaged" / "labeled" / "cat" / f"bad{number}.png").write_bytes(b"no image")
    shutil.copy(photos / "labeled" / "cat" / "00.png", place / "leak" / "test" / "cat" / "x.png")
    write_image(place / "stray" / "labeled" / "x.png", 400)
    shutil.copytree(photos / "unlabeled", place / "pool")
    rows = [f"photos/labeled/{name}/0{n}.png,{name}" for name in ("cat", "dog") for n in range(4)]
    (place / "rows.csv").write_text("\n".join(["path,label", *rows, "gone.png,cat"]))
    random = np.random.default_rng(0)
    for folder, side, others in (
        ("mixed", (8, 12), (20, 20)),
        ("wide", (8, 12), (8, 12)),
        ("large", (99, 99), (99, 99)),
        ("few", (8, 8), (8, 8)),
    ):
        for number in range(12):
            of = ("unlabeled", "labeled/cat", "labeled/dog")[number % 3]
            shape = others if of == "unlabeled" else side
            file = place / folder / of / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(random.integers(0, 256, (*shape, 3), dtype=np.uint8)))
    words = ["train", str(photos), "--method", "supervised", "--size", "8", *quick("")]
    assert main([*words, "--out", str(place / "run")]) == 0
    return place


def quick(command: str) -> Iterator[str]:
    """Yield the options of ``QUICK`` that a command does not give."""
    for option, value in QUICK.items():
        if option not in command.split():
            yield from (option, value)


def do_as_advised(case: Case, place: Path, say: Say, patch: pytest.MonkeyPatch) -> None:
    """Meet what is advised, do it, and check that it is advised no longer.

    Args:
        place: a copy of what ``write_place`` wrote, to work in.
    """
    patch.chdir(place)
    patch.setenv("COLUMNS", "200")
    case.prepare(patch)

    def do(command: str) -> tuple[int, str]:
        words = shlex.split(command)
        options = quick(command) if words[0] == "train" and "--help" not in words else ()
        status, said = say(*words, *options)
        return status, re.sub(r"\s+", " ", said)

    status, said = do(case.before)
    advice = re.search(case.advice, said)
    assert advice, (status, said)
    after = case.after if isinstance(case.after, str) else case.after()
    if "--out new" in after:
        shutil.rmtree("new", ignore_errors=True)
    status, said = do(after.format(*advice.groups()))
    assert status == case.status, said
    assert not re.search(case.advice, said), said
    assert re.search(case.then, said), said
