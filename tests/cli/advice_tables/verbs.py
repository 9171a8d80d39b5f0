"""Cases of advice of all verbs but ``daso train``."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
import torch
from advice import Case, little_memory, trained
from label_sets import label_some
from made_files import pixels, png, write_image, write_tar

from daso.cli import main
from daso.export.facts import ModelFacts
from daso.reproduce import campaign
from daso.reproduce.campaign import Campaign
from daso.reproduce.scales import SCALES


def others() -> None:
    for number in range(50):
        label = ("cat", "dog")[number % 2]
        write_image(Path("others", "labeled", label, f"{number}.png"), 700 + number)


def shares() -> str:
    Path("shares.json").write_text(json.dumps({"cat": 0.5, "dog": 0.5}))
    return "predict run photos/test --prior shares.json"


def without_predictions(patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("run")
    trained("photos", "--out", "run")
    Path("run/beliefs.safetensors").unlink(missing_ok=True)


def shard_of(names: list[str]) -> None:
    members = [
        (name, png(pixels(int(name[0]))) if name.endswith("png") else name[0].encode())
        for name in names
    ]
    write_tar(Path("shards/train-0.tar"), members)


def sorted_shard() -> str:
    shard_of(sorted(["0.png", "0.cls", "1.png", "1.cls"]))
    return "data check shards"


def resumed() -> str:
    assert main(["resume", "half"]) == 0
    return "compare run half --out compared"


def moved_after_training(patch: pytest.MonkeyPatch) -> None:
    trained("photos", "--out", "moved-run")
    Path("photos").rename("moved")


def sorted_since(patch: pytest.MonkeyPatch) -> None:
    label_some(Path("photos"), {0: "cat", 1: "dog"})
    trained("photos", "--out", "sorted")
    assert main(["label", "photos", "--apply"]) == 0


def hidden_class(patch: pytest.MonkeyPatch) -> None:
    label_some(Path("photos"), {0: ".x"})


def no_dogs(patch: pytest.MonkeyPatch) -> None:
    estimated = (np.array([1.0, 0.0]), "a test")
    patch.setattr(ModelFacts, "estimate_distribution", lambda *_: estimated)


def predicted_alike() -> str:
    """Compare what the file and the run answer, in the precision that is advised."""
    answers = []
    for model in ("model.safetensors", "half"):
        words = ["--precision", "float32", "--probabilities", "--out", f"{model}.csv"]
        assert main(["predict", model, "photos/test", *words]) == 0
        rows = csv.reader(Path(f"{model}.csv").read_text().splitlines()[1:])
        answers.append([[float(cell) for cell in row[2:5]] for row in rows])
    np.testing.assert_allclose(*answers, atol=1e-6)
    return "predict model.safetensors photos/test"


def no_tracing(patch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("an operation without a name")

    patch.setattr(torch.export, "export", fail)


def begun(weights: Path | None = None) -> None:
    for name in ("weights", "others"):
        Path(name).write_text(name)
    Campaign(Path("begun"), SCALES["smoke"], Path(), "cpu", (), weights).begin()


def no_locks(patch: pytest.MonkeyPatch) -> None:
    def lock(file: TextIO, how: int) -> None:
        if "begun" in file.name:
            raise OSError(errno.ENOLCK, "No locks available")

    patch.setattr(campaign.fcntl, "flock", lock)


CASES: dict[str, Case] = {
    "a report is not computed": Case(
        "report run --device cpu", r"goes with (--refresh)", "report run --device cpu {0}"
    ),
    "adjusted twice": Case(
        "predict run photos/test --logit-adjusted --prior labeled",
        r"leave out (--prior)",
        "predict run photos/test --logit-adjusted",
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
        r"unsure = 3.0 .*from 0 to (1)",
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
        r"goes with (--apply)",
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
    "many damaged images": Case(
        "data check damaged", r"and 2 more \((--all) lists them\)", "data check damaged {0}", status=1
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
    "a check of what is too large": Case(
        "data check photos --size 16",
        r"images of .* take .*or give a smaller (--size)",
        "data check photos {0} 8",
        prepare=little_memory,
    ),
    "a report without predictions": Case(
        "report run", r"'daso (report run --refresh)' makes it", "{0}", prepare=without_predictions
    ),
    "labels that are drawn": Case(
        "validate drawn --folds 2",
        r"larger set \(--labeled-head\): (evaluate) the run on a test set",
        "{0} drawn",
        prepare=lambda _: trained("photos", "--out", "drawn", "--labeled-head", "2"),
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
    "the images of a validation are others": Case(
        "validate run --folds 2 --data moved --quiet",
        r"Name the place of the run's images with (--data)",
        "validate run --folds 2 {0} photos --quiet",
        prepare=lambda _: write_image(
            Path(shutil.copytree("photos", "moved"), "labeled", "cat", "x.png"), 600
        ),
    ),
    "files that were sorted since a training": Case(
        "validate sorted --folds 2 --quiet",
        r"13 labels as before, but .* 2 files were sorted since: 'daso (label \S+ --apply --undo)'"
        r" puts them back",
        "{0}",
        "2 files were put back",
        prepare=sorted_since,
    ),
    "files that were sorted since an evaluation": Case(
        "evaluate sorted",
        r"not the images of the run: .*; 2 files were sorted since: 'daso (label \S+ --apply --undo)'",
        "{0}",
        "2 files were put back",
        prepare=sorted_since,
    ),
    "a fold of no folds": Case(
        "train photos --method supervised --size 8 --out new --fold 1",
        r"give both or neither of folds and fold, as (--folds 5 --fold 0)",
        "train photos --method supervised --size 8 --out new {0}",
    ),
    "a split for which a class is too small": Case(
        "train photos --method supervised --size 8 --out new --labeled-head 6",
        r"class 'dog' has 5 images after the hold-out; .* use a smaller (--labeled-head), --unlabel",
        "train photos --method supervised --size 8 --out new {0} 5",
    ),
    "a hold-out that is smaller than the classes": Case(
        "train photos --method supervised --size 8 --out new --holdout 1",
        r"too small for 2 classes: it takes as many images of each; give (--holdout 2) or more",
        "train photos --method supervised --size 8 --out new {0}",
    ),
    "a run that was not calibrated": Case(
        "calibrate run",
        r"labeled images that its training has not seen: 'daso calibrate (\S+) IMAGES'",
        "calibrate {0} others/labeled",
        "temperature",
        prepare=lambda _: others(),
    ),
    "a run that is not complete": Case(
        "compare run half --out compared",
        r"is not complete; 'daso resume (\S+)' goes on",
        resumed,
        prepare=lambda _: Path(shutil.copytree("run", "half"), "summary.json").unlink(),
    ),
    "a row of a comparison": Case(
        "compare run --baseline supervisd --out compared",
        r"choose from (supervised)",
        "compare run --baseline {0} --out compared",
    ),
    "rows of a table": Case(
        "reproduce 1 --rows nothing --out table", r"unknown \w+ \S+; (--list) shows", "reproduce 1 {0} --out table"
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
    "a class that is estimated to be absent": Case(
        "predict run photos/test --prior estimated",
        r"no image of dog, so none is classified as such; if that is wrong, use another (--prior)",
        "predict run photos/test {0} uniform",
        prepare=no_dogs,
    ),
    "a check that refuses": Case(
        "data check damaged",
        r"correct what is refused, or leave it out with (--skip-bad)",
        "train damaged --method supervised --size 8 --out new {0}",
    ),
    "no place to put the answer": Case(
        "predict run photos/test --out",
        r"'(?:daso )?(.+ --help)' lists all options",
        "{0}",
        then="--out",
    ),
    "more of a method": Case(
        "methods", r"daso (methods) NAME shows hyper-parameters", "{0} fixmatch", then="--threshold"
    ),
    "adjusted without a training": Case(
        "methods --json",
        r"measured beside every run; daso (predict --logit-adjusted)",
        "{0} run photos/test",
        then="class",
    ),
    "an export in another precision": Case(
        "export half --format safetensors --out model.safetensors",
        r"daso (predict --precision float32) matches this file",
        predicted_alike,
        prepare=lambda _: trained("photos", "--out", "half", "--precision", "bfloat16"),
    ),
    "a network that no format expresses": Case(
        "export run --format onnx --out model.onnx",
        r"cannot express this network: .*; use (--format safetensors)",
        "export run {0} --out model.safetensors",
        prepare=no_tracing,
    ),
    "a campaign of another scale": Case(
        "reproduce 1 --scale lite --table-only --out begun",
        r"begun holds a campaign of --scale smoke; use another (--out)",
        "reproduce 1 --scale lite --table-only {0} other",
        prepare=lambda _: begun(),
    ),
    "a campaign of other weights": Case(
        "reproduce 1 --table-only --out begun --weights others",
        r"begun holds a campaign that starts from .*; use another (--out)",
        "reproduce 1 --scale smoke --table-only {0} other --weights others",
        prepare=lambda _: begun(Path("weights")),
    ),
    "a campaign whose weights were changed": Case(
        "reproduce 1 --table-only --out begun --weights weights",
        r"weights has changed since the campaign began; restore it, or use another (--out)",
        "reproduce 1 --scale smoke --table-only {0} other --weights weights",
        prepare=lambda _: (begun(Path("weights")), Path("weights").write_text("more")),
    ),
    "a campaign on a file system without locks": Case(
        "reproduce 1 --scale smoke --table-only --out begun",
        r"cannot lock begun: .* this file system lacks.*; use another (--out)",
        "reproduce 1 --scale smoke --table-only {0} other",
        prepare=no_locks,
    ),
}  # fmt: skip
