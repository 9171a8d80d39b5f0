"""Advice of refusals and notes, done as it says: one table, besides ``test_advice_done.py``."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from label_sets import label_some, pixels, png, write_folder, write_image

from daso.cli import main
from daso.data.images import memory
from daso.errors import RunError
from daso.report.figures import draw
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


def shares() -> str:
    Path("shares.json").write_text(json.dumps({"cat": 0.5, "dog": 0.5}))
    return "predict run photos/test --prior shares.json"


def labeled() -> str:
    label_some(Path("pool"), {0: "cat", 1: "dog", 2: "cat", 3: "dog"})
    return "train pool --method supervised --size 8 --out new"


def trained(*words: str) -> None:
    method = ["--method", "supervised", "--size", "8"]
    assert main(["train", *words, *method, *_quick("")]) == 0


def without_predictions(patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("run")
    trained("photos", "--out", "run")
    Path("run/beliefs.safetensors").unlink(missing_ok=True)


def full_disk(patch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(".")._replace(free=5_000)
    patch.setattr(shutil, "disk_usage", lambda path: free)


def no_plots(patch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise RunError("a full disk")

    patch.setattr(draw, "draw_run", fail)


def little_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "available_memory", lambda: 6_000)


def shard_of(names: list[str]) -> None:
    Path("shards").mkdir(exist_ok=True)
    with tarfile.open("shards/train-0.tar", "w") as archive:
        for name in names:
            number, content = int(name[0]), name[0].encode()
            content = png(pixels(number)) if name.endswith("png") else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def sorted_shard() -> str:
    shard_of(sorted(["0.png", "0.cls", "1.png", "1.cls"]))
    return "data check shards"


def resumed() -> str:
    assert main(["resume", "half"]) == 0
    return "compare run half --out compared"


def few_dogs(count: int) -> Callable[[pytest.MonkeyPatch], None]:
    def prepare(patch: pytest.MonkeyPatch) -> None:
        shutil.rmtree("bare/test")
        for file in sorted(Path("bare/labeled/dog").iterdir())[count:]:
            file.unlink()

    return prepare


def moved_after_training(patch: pytest.MonkeyPatch) -> None:
    trained("photos", "--out", "moved-run")
    Path("photos").rename("moved")


def another_dog() -> str:
    write_image(Path("few/labeled/dog/more.png"), 500)
    return "train few --method fixmatch+darp+estimate --size 8 --out new --holdout 2"


def hidden_class(patch: pytest.MonkeyPatch) -> None:
    label_some(Path("photos"), {0: ".x"})


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
    "a device that nobody has": Case(
        f"{TRAIN} --device tpu", r"choose from (cpu)", f"{TRAIN} --device {{0}}"
    ),
    "a device that is not here": Case(
        f"{TRAIN} --device cuda", r"use (--device) cpu or (auto)", f"{TRAIN} {{0}} {{1}}"
    ),
    "a graph without its device": Case(f"{TRAIN} --cuda-graph", r"--cuda-graph .*; leave it out", TRAIN),
    "patience without a hold-out": Case(
        f"{TRAIN} --patience 3",
        r"--patience has no effect[^;]*; (--holdout \d+)",
        f"{TRAIN} --patience 3 {{0}}",
    ),
    "padding without a crop": Case(
        f"{FIXMATCH} --crop resized --crop-padding 2",
        r"--crop-padding has no effect: it requires (--crop pad)",
        f"{FIXMATCH} --crop-padding 2 {{0}}",
    ),
    "a share of images that are not drawn": Case(
        f"{FIXMATCH} --gamma-unlabeled 2",
        r"--gamma-unlabeled has no effect: it requires (--unlabeled-head)",
        "train bare --method fixmatch --size 8 --out new --gamma-unlabeled 2 --labeled-head 2 {0} 2",
    ),
    "T_dist of a fixed blend": Case(
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+daso')} --blend fixed --dist-temperature 2",
        r"--dist-temperature has no effect: it requires (--blend distribution)",
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+daso')} --dist-temperature 2 {{0}}",
    ),
    "an option of another method": Case(
        f"{FIXMATCH} --dist-temperature 2",
        r"that have it: --dist-temperature: (\S+) \('daso (methods) NAME'",
        "{1} {0}",
        then="dist-temperature",
    ),
    "a report is not computed": Case(
        "report run --device cpu", r"goes with (--refresh)", "report run --device cpu {0}"
    ),
    "adjusted twice": Case(
        "predict run photos/test --logit-adjusted --prior labeled",
        r"--logit-adjusted means (--prior uniform)",
        "predict run photos/test {0}",
    ),
    "a prior without a name": Case(
        "predict run photos/test --prior unifrom",
        r"choose from (uniform)",
        "predict run photos/test --prior {0}",
    ),
    "few images for an estimate": Case(
        "predict run photos/test --prior estimated", r"give known ones with --prior FILE\.json", shares
    ),
    "more classes than there are": Case(
        "predict run photos/test --top 9",
        r"--top = 9 is more than the model's (\d+) classes",
        "predict run photos/test --top {0}",
    ),
    "no class at all": Case(
        "predict run photos/test --top 0",
        r"top = 0 .*must be at least (\d)",
        "predict run photos/test --top {0}",
    ),
    "an impossible confidence": Case(
        "predict run photos/test --unsure 3",
        r"unsure = 3.0 .*at most (1)",
        "predict run photos/test --unsure {0}",
    ),
    "resumed on standard output": Case(
        "predict run photos/test --resume",
        r"add (--out)",
        "predict run photos/test --resume {0} predictions.csv",
    ),
    "an export by another name": Case(
        "export run --format safetensors --out model.bin",
        r"the suffix must be (\.\w+)",
        "export run --format safetensors --out model{0}",
    ),
    "an export whose images are gone": Case(
        "export moved-run --format onnx",
        r"give images with (--images)",
        "export moved-run --format onnx {0} moved/test",
        prepare=moved_after_training,
    ),
    "undone without applying": Case(
        "label photos --undo",
        r"--undo goes with (--apply)",
        "label photos {0} --undo",
        then="0 files were put back",
    ),
    "a port that does not exist": Case(
        "label photos --port 99999 --export labels.csv",
        r"port = 99999 .*at least (\d)",
        "label photos --port {0} --export labels.csv",
    ),
    "the run folder of a round": Case(
        "label photos --train '--out x' --export labels.csv",
        r"--train: --out is set by the page",
        "label photos --train '--steps 9' --export labels.csv",
    ),
    "a run knows its data": Case(
        "label run --unlabeled photos/unlabeled --export labels.csv",
        r"leave out --unlabeled",
        "label run --export labels.csv",
    ),
    "a name is no place to label": Case(
        "label digits --export labels.csv",
        r"daso label takes the path of images|no such file or folder; check the path",
        "label photos --export labels.csv",
    ),
    "a class that is no folder": Case(
        "label photos --apply",
        r"use (--export) FILE\.csv",
        "label photos {0} labels.csv",
        prepare=hidden_class,
    ),
    "nothing is labeled": Case(
        "train pool --method supervised --size 8 --out new",
        r"label some with 'daso label pool'",
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
        r"2 labels of daso label are used.*; (--no-journal) trains without them",
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
        r"(--skip-bad)",
        "train damaged --method supervised --size 8 --out new {0}",
    ),
    "many damaged images": Case(
        "data check damaged", r"and 2 more \((--all) lists them\)", "data check damaged {0}", status=1
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
        r"12 x 8 is not square; (--rotation-weight 0) turns this off",
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
    "a check of images that are made smaller": Case(
        "data check large", r"training uses 32 x 32.* \((--size) changes it\)", "data check large {0} 99"
    ),
    "images that are enlarged": Case(
        "data check photos --size 40", r"give a smaller (--size)", "data check photos {0} 8"
    ),
    "a verb of data": Case("data chek photos", r"use (check)", "data {0} photos"),
    "both names of a source": Case(
        "data check photos --labeled photos/labeled",
        r"give either SOURCE or (--labeled) FOLDER",
        "data check {0} photos/labeled",
    ),
    "no source": Case(
        "train --method supervised --size 8 --out new",
        r"or (--labeled) FOLDER",
        "train {0} photos/labeled --method supervised --size 8 --out new",
    ),
    "no source that exists": Case("train photoz", r"daso (presets) lists them", "{0}", then="cifar10-n500-g100"),
    "an option that does not exist": Case(
        "train photos --xyz 3", r"unknown option --xyz; 'daso (train --help)'", "{0}", then="--steps"
    ),
    "two ways to save memory": Case(
        f"{TRAIN} --recompute --compile",
        r"(--recompute) and --compile exclude each other; leave one out",
        f"{TRAIN} {{0}}",
    ),
    "a batch norm of one value": Case(
        "train photos --method supervised --size 1 --out new --batch 1",
        r"--batch.*train on (2) images a step",
        "train photos --method supervised --size 1 --out new --batch {0}",
    ),
    "a place that holds other things": Case(
        "train photos --method supervised --size 8 --out photos",
        r"it is no run; use another (--out)",
        "train photos --method supervised --size 8 {0} new",
    ),
    "strong views of another size": Case(
        f"{FIXMATCH} --strong-side 8", r"add (--resolution)", f"{FIXMATCH} --strong-side 8 {{0}} 16"
    ),
    "an estimate that never changes": Case(
        FIXMATCH.replace("fixmatch", "acr"),
        r"lower (--estimate-period) \d+, for example to (\d+)",
        FIXMATCH.replace("fixmatch", "acr") + " {0} {1}",
    ),
    "a prior that never changes": Case(
        FIXMATCH.replace("fixmatch", "simpro"),
        r"lower (--prior-period) \d+, for example to (\d+)",
        FIXMATCH.replace("fixmatch", "simpro") + " {0} {1}",
    ),
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
    "retraining for too long": Case(
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+crt')} --retraining-steps 5",
        r"(--retraining-steps)\): it must be at least (1)",
        FIXMATCH.replace("fixmatch", "fixmatch+crt") + " {0} {1}",
    ),
    "blocks that are none": Case(
        f"{TRAIN} --layer-decay 0.5",
        r"--layer-decay.*leave it at (1)",
        f"{TRAIN} --layer-decay {{0}}",
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
    "a check of what is too large": Case(
        "data check photos --size 16",
        r"images of .* take .*or give a smaller (--size)",
        "data check photos {0} 8",
        prepare=little_memory,
    ),
    "a cache that is too small": Case(
        "train photos --method supervised --size 16 --out new --cache kept",
        r"use a smaller (--size) or another --cache",
        "train photos --method supervised --out new --cache kept {0} 8",
        prepare=full_disk,
    ),
    "plots that could not be drawn": Case(
        TRAIN, r"no plots: .*'daso (plot new)' draws them", "{0}", then="new/", prepare=no_plots
    ),
    "a report without predictions": Case(
        "report run", r"'daso (report run --refresh)' makes it", "{0}", prepare=without_predictions
    ),
    "labels that are drawn": Case(
        "validate drawn --folds 2",
        r"(evaluate) the run on a test set",
        "{0} drawn",
        prepare=lambda _: trained("photos", "--out", "drawn", "--labeled-head", "2"),
    ),
    "a class of which none is held out": Case(
        "train bare --method supervised --size 8 --out new",
        r"dog has too few labels.*\(daso (validate) measures",
        "{0} new --folds 2 --quiet",
        prepare=few_dogs(4),
    ),
    "a class of which none can be held out": Case(
        "train bare --method supervised --size 8 --out new --holdout 12",
        r"1 of 6 of cat; daso (validate) measures all labeled images",
        "{0} new --folds 2 --quiet",
        prepare=few_dogs(1),
    ),
    "a check of one image in two parts": Case(
        "data check leak",
        r"(--skip-bad) leaves the test image out",
        "train leak --method supervised --size 8 --out new {0}",
    ),
    "a check of one image with two labels": Case(
        "data check photos",
        r"(--skip-bad) leaves all of them out",
        "train photos --method supervised --size 8 --out new {0}",
        prepare=lambda _: shutil.copy("photos/labeled/cat/00.png", "photos/labeled/dog/x.png"),
    ),
    "a check of damaged images": Case(
        "data check damaged",
        r"repair or remove them, or leave them out: (--skip-bad)",
        "train damaged --method supervised --size 8 --out new {0}",
    ),
    "a check of unusable rows": Case(
        "data check rows.csv",
        r"correct them, or leave them out: (--skip-bad)",
        "train rows.csv --method supervised --size 8 --out new {0}",
    ),
    "images in shards without a label": Case(
        "data check shards",
        r"give each a \.cls right after it in the archive \(tar (--sort=name)\)",
        sorted_shard,
        prepare=lambda _: shard_of(["0.png", "0.cls", "1.png", "1.cls", "2.png"]),
    ),
    "members of shards that are apart": Case(
        "data check shards",
        r"(--sort=name)",
        sorted_shard,
        prepare=lambda _: shard_of(["0.png", "1.png", "0.cls", "1.cls"]),
    ),
    "labels that are all of the page": Case(
        "train pool --method supervised --size 8 --out new --holdout 2",
        r"leave holdout out",
        "train pool --method supervised --size 8 --out new",
        prepare=lambda _: labeled(),
    ),
    "the images of a validation are others": Case(
        "validate run --folds 2 --data moved --quiet",
        r"Name the place of the run's images with (--data)",
        "validate run --folds 2 {0} photos --quiet",
        prepare=lambda _: write_image(
            Path(shutil.copytree("photos", "moved"), "labeled", "cat", "x.png"), 600
        ),
    ),
    "a loss of NaN": Case(
        f"{TRAIN} --steps 9 --learning-rate 1e30",
        r"a lower (--learning-rate)",
        f"{TRAIN} --steps 9 {{0}} 0.01",
    ),
    "less than no memory": Case(
        f"{TRAIN} --memory -1", r"--memory.* must be at least (0)", f"{TRAIN} --memory {{0}}"
    ),
    "a run that is not complete": Case(
        "compare run half --out compared",
        r"'daso resume (half)' goes on",
        resumed,
        prepare=lambda _: Path(shutil.copytree("run", "half"), "summary.json").unlink(),
    ),
    "a row of a comparison": Case(
        "compare run --baseline supervisd --out compared",
        r"choose from (supervised)",
        "compare run --baseline {0} --out compared",
    ),
    "rows of a table": Case(
        "reproduce 1 --rows nothing --out table", r"unknown row 'nothing'; (--list)", "reproduce 1 {0} --out table"
    ),
    "no process": Case(
        "reproduce 1 --jobs 0 --list --out table",
        r"jobs = 0 .*must be at least (1)",
        "reproduce 1 --jobs {0} --list --out table",
    ),
    "options of no engine": Case(
        "reproduce 1 --list --engine-options timeout_min=9 --out table",
        r"--engine-options and --wait need (--engine)",
        "reproduce 1 --list --engine-options timeout_min=9 --out table {0} local",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with image folders and a ``run``."""
    place = tmp_path_factory.mktemp("table")
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
    words = ["train", str(photos), "--method", "supervised", "--size", "8", *_quick("")]
    assert main([*words, "--out", str(place / "run")]) == 0
    return place


def _quick(command: str) -> Iterator[str]:
    for option, value in QUICK.items():
        if option not in command.split():
            yield from (option, value)


@pytest.mark.parametrize("name", CASES)
def test_the_trouble_is_gone_after_doing_as_advised(
    name: str, place: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(here)
    monkeypatch.setenv("COLUMNS", "200")
    case = CASES[name]
    case.prepare(monkeypatch)

    def do(command: str) -> tuple[int, str]:
        words = shlex.split(command)
        status, said = say(
            *words, *(_quick(command) if words[0] == "train" and "--help" not in words else ())
        )
        return status, re.sub(r"\s+", " ", said)

    status, said = do(case.before)
    advice = re.search(case.advice, said)
    assert advice, (status, said)
    after = case.after if isinstance(case.after, str) else case.after()
    if "--out new" in after:
        shutil.rmtree(here / "new", ignore_errors=True)
    if case.prepare is no_plots:
        monkeypatch.setattr(draw, "draw_run", lambda folder: [Path("new/plots")])
    status, said = do(after.format(*advice.groups()))
    assert status == case.status, said
    assert not re.search(case.advice, said), said
    assert re.search(case.then, said), said
