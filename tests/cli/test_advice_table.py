"""Advice of trainings, done as it says: one table, besides ``test_advice_done.py``."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from advice import FIXMATCH, TRAIN, Case, do_as_advised, little_memory, trained, write_place
from label_sets import label_some, write_image

from daso.errors import RunError
from daso.nets import convert
from daso.nets.network import Network, build_encoder
from daso.nets.pretrained.timm_import import import_timm
from daso.report.figures import draw
from daso.train.step import mapped_tables
from tests.conftest import Say


def labeled() -> str:
    label_some(Path("pool"), {0: "cat", 1: "dog", 2: "cat", 3: "dog"})
    return "train pool --method supervised --size 8 --out new"


def full_disk(patch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(".")._replace(free=5_000)
    patch.setattr(shutil, "disk_usage", lambda path: free)


def no_plots(patch: pytest.MonkeyPatch) -> None:
    def fail_once(folder: Path) -> None:
        patch.setattr(draw, "draw_run", lambda folder: [Path("new/plots")])
        raise RunError("a full disk")

    patch.setattr(draw, "draw_run", fail_once)


def few_dogs(count: int) -> Callable[[pytest.MonkeyPatch], None]:
    def prepare(patch: pytest.MonkeyPatch) -> None:
        shutil.rmtree("bare/test")
        for file in sorted(Path("bare/labeled/dog").iterdir())[count:]:
            file.unlink()

    return prepare


def another_dog() -> str:
    write_image(Path("few/labeled/dog/more.png"), 500)
    return "train few --method fixmatch+darp+estimate --size 8 --out new --holdout 2"


def weights(patch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    tensors = build_encoder("small-4", 3, 8).state_dict()
    safetensors.torch.save_file(tensors, "weights.safetensors")
    return dict(tensors)


def pickled(patch: pytest.MonkeyPatch) -> None:
    torch.save(weights(patch), "weights.pt")
    Path("weights.safetensors").unlink()


def converted() -> str:
    convert.convert(Path("weights.pt"))
    return f"{TRAIN} --network small-4 --weights weights.safetensors"


def weights_of_timm(name: object) -> None:
    model = import_timm().create_model(name if isinstance(name, str) else "test_vit", num_classes=0)
    safetensors.torch.save_file(model.state_dict(), "timm.safetensors")


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


def overflowing(patch: pytest.MonkeyPatch) -> None:
    real = Network.forward

    def forward(network: Network, images: torch.Tensor) -> torch.Tensor:
        features = real(network, images)
        return features if network.precision == "float32" else torch.full_like(features, np.inf)

    patch.setattr(Network, "forward", forward)


DASO = FIXMATCH.replace("fixmatch", "fixmatch+daso")
REMIXMATCH = FIXMATCH.replace("fixmatch", "remixmatch")
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
        r"it requires (--crop pad)",
        f"{FIXMATCH} --crop-padding 2 {{0}}",
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
    "T_dist of a fixed blend": Case(
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+daso')} --blend fixed --dist-temperature 2",
        r"it requires (--blend distribution)",
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+daso')} --dist-temperature 2 {{0}}",
    ),
    "an option of another method": Case(
        f"{FIXMATCH} --dist-temperature 2",
        r"that have it: .*?(\S+) \('daso (methods) NAME' shows",
        "{1} {0}",
        then="dist-temperature",
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
    "an option that does not exist": Case(
        "train photos --xyz 3", r"unknown option \S+; '(?:daso )?(.+ --help)' lists", "{0}", then="--steps"
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
    "a cache that is too small": Case(
        "train photos --method supervised --size 16 --out new --cache kept",
        r"use a smaller (--size) or another --cache",
        "train photos --method supervised --out new --cache kept {0} 8",
        prepare=full_disk,
    ),
    "plots that could not be drawn": Case(
        TRAIN, r"no plots: .*'daso (plot [^']+)' draws them", "{0}", then="new/", prepare=no_plots
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
        r"all labels are of daso label, .*leave holdout out",
        "train pool --method supervised --size 8 --out new",
        prepare=lambda _: labeled(),
    ),
    "a loss of NaN": Case(
        f"{TRAIN} --steps 9 --learning-rate 1e30",
        r"a lower (--learning-rate)",
        f"{TRAIN} --steps 9 {{0}} 0.01",
    ),
    "a loss of NaN that is rolled back": Case(
        f"{TRAIN} --steps 2 --evaluate-every 2 --learning-rate 1e30 --rollbacks 150",
        r"'daso (resume \S+ --on-divergence rollback)' .* with half the learning rate",
        "{0} --quiet",
        then="2 steps in",
    ),
    "less than no memory": Case(
        f"{TRAIN} --memory -1", r"--memory.* must be at least (0)", f"{TRAIN} --memory {{0}}"
    ),
    "an option of another blend": Case(
        f"{DASO} --fixed-blend 0.4", r"it requires (--blend fixed)", f"{DASO} --fixed-blend 0.4 {{0}}"
    ),
    "the length of a queue": Case(
        f"{DASO} --queue-length 8 --no-balanced-queue",
        r"it requires (--balanced-queue)",
        f"{DASO} --queue-length 8 {{0}}",
    ),
    "rotations of embeddings": Case(
        f"{REMIXMATCH} --network run --freeze",
        r"rotates images, not vectors: use (--rotation-weight 0)",
        f"{REMIXMATCH} --network run --freeze {{0}}",
    ),
    "frozen, but nothing to freeze": Case(
        f"{TRAIN} --freeze",
        r"needs a pretrained network: (--network) hf:NAME, timm:NAME or a folder, or (--weights) FILE",
        f"{TRAIN} --freeze {{0}} run",
    ),
    "weights of no network": Case(
        f"{TRAIN} --network '' --weights weights.safetensors",
        r"--weights needs their network: (--network) resnet50, for example",
        f"{TRAIN} {{0}} small-4 --weights weights.safetensors",
        prepare=weights,
    ),
    "weights as a pickle": Case(
        f"{TRAIN} --network small-4 --weights weights.pt",
        r"If you trust it, convert it: python -m daso\.nets\.convert (\S+)",
        converted,
        prepare=pickled,
    ),
    "images that a network does not take": Case(
        "train wide --method supervised --network run --out new",
        r"needs square images.*; (--size \d+) makes a folder's images square",
        "train wide --method supervised --network run --out new {0}",
    ),
    "a run on embeddings as a network": Case(
        f"{TRAIN} --network frozen",
        r"was trained on embeddings; use its backbone: (--network \S+)",
        f"{TRAIN} {{0}}",
        prepare=lambda _: trained("photos", "--network", "run", "--freeze", "--out", "frozen"),
    ),
    "embeddings that nobody can write": Case(
        f"{TRAIN} --network run --freeze --embedding-folder photos/test/cat/00.png",
        r"cannot write into .*00\.png.*; choose another folder",
        f"{TRAIN} --network run --freeze --embedding-folder kept",
        then="run folder",
    ),
    "a training from scratch": Case(
        TRAIN,
        r"pretrained encoder usually does much better .*\((--network timm:)NAME (--freeze);",
        f"{TRAIN} {{0}}test_vit {{1}} --weights timm.safetensors --resolution 32",
        prepare=weights_of_timm,
    ),
    "a model of timm without weights": Case(
        f"{TRAIN} --network timm:lcnet_035 --freeze --resolution 32",
        r"the hub has no weights of timm's 'lcnet_035'; use (--weights) FILE",
        f"{TRAIN} --network timm:lcnet_035 --freeze --resolution 32 {{0}} timm.safetensors",
        prepare=lambda _: weights_of_timm("lcnet_035"),
    ),
    "a loss of NaN in low precision": Case(
        f"{TRAIN} --steps 9 --learning-rate 1e30 --precision bfloat16",
        r"try a lower (--learning-rate) or (--precision float32)",
        f"{TRAIN} --steps 9 {{0}} 0.01 {{1}}",
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
    "embeddings that low precision cannot hold": Case(
        f"{TRAIN} --network run --freeze --embedding-folder fresh --precision bfloat16",
        r"NaN or infinity for some images; use (--precision float32)",
        f"{TRAIN} --network run --freeze --embedding-folder fresh {{0}}",
        prepare=overflowing,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("name", CASES)
def test_the_trouble_is_gone_after_doing_as_advised(
    name: str, place: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(shutil.copytree(place, tmp_path / "here"))
    do_as_advised(CASES[name], here, say, monkeypatch)
