"""Cases of advice about the images, labels and memory of a training."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from advice import FIXMATCH, TRAIN, Case, little_memory
from label_sets import label_some
from made_files import write_image

from daso.train.step import mapped_tables


def labeled() -> str:
    label_some(Path("pool"), {0: "cat", 1: "dog", 2: "cat", 3: "dog"})
    return "train pool --method supervised --size 8 --out new"


def full_disk(patch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(".")._replace(free=5_000)
    patch.setattr(shutil, "disk_usage", lambda path: free)


def few_dogs(count: int) -> Callable[[pytest.MonkeyPatch], None]:
    def prepare(patch: pytest.MonkeyPatch) -> None:
        shutil.rmtree("bare/test")
        for file in sorted(Path("bare/labeled/dog").iterdir())[count:]:
            file.unlink()

    return prepare


def another_dog() -> str:
    write_image(Path("few/labeled/dog/more.png"), 500)
    return "train few --method fixmatch+darp+estimate --size 8 --out new --holdout 2"


def other_images(patch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        write_image(Path("others") / ("cat", "dog")[number % 2] / f"{number}.png", 900 + number)


def full_place(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let folders with this in their path have no room for another file of a table."""

    def create(*, dir: Path) -> object:  # noqa: A002 - the name of the real one
        if name in str(dir):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return tempfile.TemporaryFile(dir=dir)

    own = SimpleNamespace(TemporaryFile=create, gettempdir=tempfile.gettempdir)
    patch.setattr(mapped_tables, "tempfile", own)


TABLE = FIXMATCH.replace("fixmatch", "fixmatch+darp+estimate") + " --holdout 2"

CASES: dict[str, Case] = {
    "no unlabeled images": Case(
        "train bare --method fixmatch --size 8 --out new",
        r"use (--method supervised)",
        "train bare {0} --size 8 --out new",
    ),
    "no unlabeled images, but some to draw": Case(
        "train bare --method fixmatch --size 8 --out new",
        r"add an unlabeled folder or (--unlabeled-head)",
        "train bare --method fixmatch --size 8 --out new --labeled-head 2 {0} 2",
    ),
    "a share of images that are not drawn": Case(
        f"{FIXMATCH} --gamma-unlabeled 2",
        r"it requires (--unlabeled-head) and a source that has no unlabeled",
        "train bare --method fixmatch --size 8 --out new --gamma-unlabeled 2 --labeled-head 2 {0} 2",
    ),
    "a ratio of images that are not drawn": Case(
        f"{TRAIN} --gamma-labeled 2",
        r"it requires (--labeled-head); all labeled images are used",
        f"{TRAIN} --gamma-labeled 2 {{0}} 2",
    ),
    "memory of a cache that there is not": Case(
        f"{TRAIN} --memory 2", r"it requires (--cache)", f"{TRAIN} --memory 2 {{0}} decoded"
    ),
    "nothing is labeled": Case(
        "train pool --method supervised --size 8 --out new",
        r"label some with 'daso label [^']+'",
        labeled,
        prepare=lambda _: label_some(Path("pool"), {0: None}),
    ),
    "labels that were chosen": Case(
        "train photos --method supervised --size 8 --out new --labeled-head 2",
        r"leave them out with (--no-journal)",
        "train photos --method supervised --size 8 --out new --labeled-head 2 {0}",
        prepare=lambda _: label_some(Path("photos"), {0: "cat", 1: "dog"}),
    ),
    "labels of the page": Case(
        TRAIN,
        r"; (--no-journal) trains without them",
        f"{TRAIN} {{0}}",
        prepare=lambda _: label_some(Path("photos"), {0: "cat", 1: "dog"}),
    ),
    "the images of another run": Case(
        "train --like run --unlabeled photos/unlabeled --out new",
        r"omit --unlabeled",
        "train --like run --out new",
    ),
    "the images of another run, elsewhere": Case(
        "train --like run --labeled photos/labeled --out new",
        r"use (--data)",
        "train --like run {0} photos --out new",
    ),
    "a damaged image": Case(
        "train damaged --method supervised --size 8 --out new",
        r"Repair or remove them, or leave them out: (--skip-bad)",
        "train damaged --method supervised --size 8 --out new {0}",
    ),
    "one image in two parts": Case(
        "train leak --method supervised --size 8 --out new",
        r"leave out leaked test images.*: (--skip-bad)",
        "train leak --method supervised --size 8 --out new {0}",
    ),
    "rows without a file": Case(
        "train rows.csv --method supervised --size 8 --out new",
        r"or leave them out: (--skip-bad)",
        "train rows.csv --method supervised --size 8 --out new {0}",
    ),
    "images outside the classes": Case(
        "train stray --method supervised --size 8 --out new",
        r"or leave them out: (--skip-bad)",
        "train stray --method supervised --size 8 --out new {0}",
    ),
    "images of several sizes in a cache": Case(
        "train mixed --method supervised --out new --cache cache",
        r"(--size) N gives all images one size",
        "train mixed --method supervised --out new --cache cache {0} 8",
    ),
    "images that are no squares": Case(
        "train wide --method remixmatch --out new",
        r"is not square; (--rotation-weight 0) turns this off",
        "train wide --method remixmatch --out new {0}",
    ),
    "images that are made smaller": Case(
        "train large --method supervised --out new",
        r"save time; (--size \d+) keeps",
        "train large --method supervised --out new {0}",
    ),
    "images of which details are lost": Case(
        "train large --method supervised --out new",
        r"try (--size \d+)",
        "train large --method supervised --out new {0}",
    ),
    "no source": Case(
        "train --method supervised --size 8 --out new",
        r"or (--labeled) FOLDER",
        "train {0} photos/labeled --method supervised --size 8 --out new",
    ),
    "no source that exists": Case("train photoz", r"daso (presets) lists them", "{0}", then="cifar10-n500-g100"),
    "classes without held-out images": Case(
        "train few --method fixmatch+darp+estimate --size 8 --out new",
        r"set some aside with (--holdout \d)",
        "train few --method fixmatch+darp+estimate --size 8 --out new {0}",
    ),
    "a class that can spare nothing": Case(
        "train few --method fixmatch+darp+estimate --size 8 --out new --holdout 2",
        r"\(dog\); label more images of them",
        another_dog,
        prepare=lambda _: [file.unlink() for file in sorted(Path("few/labeled/dog").iterdir())[1:]],
    ),
    "too much for the memory": Case(
        "train photos --method supervised --size 16 --out new",
        r"keep them on disk with (--cache) FOLDER",
        "train photos --method supervised --size 16 --out new {0} kept",
        prepare=little_memory,
    ),
    "too large for the memory": Case(
        "train photos --method supervised --size 16 --out new",
        r"or give a smaller (--size), at most (\d+)",
        "train photos --method supervised --out new {0} {1}",
        prepare=little_memory,
    ),
    "a cache that is too small": Case(
        "train photos --method supervised --size 16 --out new --cache kept",
        r"use a smaller (--size) or another --cache",
        "train photos --method supervised --out new --cache kept {0} 8",
        prepare=full_disk,
    ),
    "a class of which none is held out": Case(
        "train bare --method supervised --size 8 --out new",
        r"too few labels to hold any out.*\(daso (validate) measures",
        "{0} new --folds 2 --quiet",
        prepare=few_dogs(4),
    ),
    "a class of which none can be held out": Case(
        "train bare --method supervised --size 8 --out new --holdout 12",
        r"1 of 6 of cat; daso (validate) measures all labeled images",
        "{0} new --folds 2 --quiet",
        prepare=few_dogs(1),
    ),
    "labels that are all of the page": Case(
        "train pool --method supervised --size 8 --out new --holdout 2",
        r"all labels are of daso label, .*leave holdout .*out",
        "train pool --method supervised --size 8 --out new",
        prepare=lambda _: labeled(),
    ),
    "less than no memory": Case(
        f"{TRAIN} --memory -1", r"--memory.* must be at least (0)", f"{TRAIN} --memory {{0}}"
    ),
    "images that a network does not take": Case(
        "train wide --method supervised --network run --out new",
        r"needs square images.*; (--size \d+) makes a folder's images square",
        "train wide --method supervised --network run --out new {0}",
    ),
    "too few images to calibrate": Case(
        TRAIN,
        r"\d+ other labeled images: 'daso (calibrate \S+) IMAGES'",
        "{0} others --device cpu",
        then="temperature",
        prepare=other_images,
    ),
    "a table that has no room": Case(
        f"{TABLE} --cache kept --memory 0",
        r"has no room for a table.*; move (--cache), or use a method without such a table",
        f"{TABLE} {{0}} elsewhere --memory 0",
        prepare=lambda patch: full_place(patch, "kept"),
    ),
    "a table that has room nowhere": Case(
        f"{TABLE} --cache kept --memory 0",
        r"has no room for a table.* or use a method without such a table \((fixmatch\+daso)\)",
        "train photos --method {0} --size 8 --out new --cache kept --memory 0",
        prepare=lambda patch: full_place(patch, "kept"),
    ),
}  # fmt: skip
