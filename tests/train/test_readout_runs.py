"""Runs with a readout: resumed anywhere they end the same, and everything that reads a run reads them."""

from __future__ import annotations

import dataclasses
import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from run_files import comparable
from safetensors.torch import load_file

from daso.cli import main
from daso.data.images.decoded import DecodedImages
from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.errors import DivergedError, OptionError, RunError
from daso.evaluate.predict import predict_logits, represent_in_batches
from daso.files import read_json, read_rows
from daso.methods.method import Batch, Step
from daso.nets.encoders.patches import PatchEncoder
from daso.nets.network import Network
from daso.nets.readout import NAME
from daso.readout.joining import OVERFIT_SCALE
from daso.train import readout
from daso.train.evaluation import evaluate_network
from daso.train.folder.checkpoint import load_checkpoint
from daso.train.loop import never
from daso.train.model import load_model
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from daso.train.step.state import Training
from daso.train.view_options import ViewOptions
from tests.conftest import MakeConfig, MakeFolder

CPU = torch.device("cpu")
STEPS = 7
BRIEF = {"steps": STEPS, "evaluate_every": 3, "log_every": 2}
TWICE = BRIEF | {"evaluate_every": STEPS}
"""Options of a run that fits its readout at the start and at the end."""
CREST = {"generations": 2, "threshold": 0.2}


def silent(_: str) -> None:
    pass


def train(prepared: Prepared, folder: Path, calls: int | None = None) -> Path:
    """Train a run; stop at the given call of its function *stop*, of which the first is after step 0."""
    counted = itertools.count()
    list(train_run(prepared, folder, never if calls is None else lambda: next(counted) >= calls))
    return folder


def last_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").glob("*.safetensors")))


def assert_same_run(one: Path, other: Path) -> None:
    assert comparable(one) == comparable(other)
    first, second = last_tensors(one), last_tensors(other)
    assert first.keys() == second.keys()
    assert [n for n, value in first.items() if not torch.equal(value, second[n])] == []
    summaries = [read_json(folder / "summary.json") for folder in (one, other)]
    assert {k: v for k, v in summaries[0].items() if k != "seconds"} == {
        k: v for k, v in summaries[1].items() if k != "seconds"
    }
    assert (one / "beliefs.safetensors").read_bytes() == (
        other / "beliefs.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("method", "options", "deploy"),
    [
        ("mixtureteacher+la+mixture", {}, "last"),
        ("supervised+la+mixture", {"join_patches": False}, "best"),
        ("fixmatch+crest+mixture", CREST, "best"),
    ],
)
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    method: str,
    options: dict[str, object],
    deploy: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(readout, "MOST_BETWEEN", 50)
    config = tiny_config(method, method_options=options, deploy=deploy, **BRIEF)
    whole = train(prepare(config, digits), tmp_path / "whole")
    evaluated = [row["step"] for row in read_rows(whole / "metrics.jsonl") if "readout" in row]
    assert evaluated[:2] == [0, 3]
    for calls in (0, random.Random(method + deploy).randrange(1, STEPS + 2)):
        folder = train(prepare(config, digits), tmp_path / f"stopped-{calls}", calls)
        assert not (folder / "summary.json").exists()
        assert (max((folder / "checkpoints").glob("*.json")).stem == f"step-{0:09d}") == (not calls)
        list(resume_run(folder, pytest.fail)[1])
        assert_same_run(whole, folder)


def test_a_run_that_diverges_goes_back_to_the_readout_before_the_first_step(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    rate = {"learning_rate": 1e30, "on_divergence": "rollback", "rollbacks": 1}
    prepared = prepare(tiny_config("supervised+mixture", steps=5, **rate), digits)
    with pytest.raises(DivergedError):
        list(train_run(prepared, tmp_path / "run"))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [(row["event"], row["step"]) for row in rows] == [("evaluate", 0), ("rollback", 0)]
    assert load_model(tmp_path / "run", CPU, pytest.fail).network.output == NAME


def test_features_that_overflow_are_a_divergence(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are finite, but the products of their layers are not."""
    advance = Training.advance

    def enlarging(self: Training, batch: Batch) -> tuple[Step, torch.Tensor]:
        outcome = advance(self, batch)
        if self.step == 3:
            for norm in self.average.network.modules():
                if isinstance(norm, torch.nn.BatchNorm2d):
                    norm.weight.data *= 1e15
        return outcome

    monkeypatch.setattr(Training, "advance", enlarging)
    options = {"join_patches": False}
    config = tiny_config("supervised+mixture", method_options=options, **BRIEF)
    with pytest.raises(DivergedError, match=r"readout.* infinite or NaN") as error:
        list(train_run(prepare(config, digits), tmp_path / "run"))
    assert (error.value.step, error.value.term) == (3, "readout")

    def singular(*_: object, **__: object) -> NoReturn:
        torch.linalg.inv(torch.zeros(2, 2))
        raise AssertionError

    monkeypatch.setattr(Training, "advance", advance)
    monkeypatch.setattr(readout, "fit_mixture", singular)
    with pytest.raises(RunError, match=r"readout .* before the first step"):
        list(train_run(prepare(config, digits), tmp_path / "start"))


@pytest.mark.parametrize(
    ("mirror", "flip", "mirrorings"),
    [("both", None, 3), ("none", True, 0), ("horizontal", None, 1), ("auto", False, 0)],
)
def test_images_are_mirrored_as_told(
    mirror: str, flip: bool | None, mirrorings: int, tiny_config: MakeConfig, digits: Source
) -> None:
    views = ViewOptions(flip=flip)
    options = {"mirror": mirror, "dimensions": 16}
    config = tiny_config("supervised+mixture", method_options=options, **BRIEF)
    prepared = prepare(dataclasses.replace(config, augmentation=views), digits)
    assert prepared.readout is not None
    row = prepared.readout.start(prepared.training.average.network)
    assert row["mirrorings"] == mirrorings


def test_stopped_before_the_first_step_a_run_is_already_of_use(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config("supervised+la+mixture", deploy="best", **BRIEF)
    folder = train(prepare(config, digits), tmp_path / "run", 0)
    model = load_model(folder, CPU, pytest.fail)
    assert (model.step, model.network.output) == (0, NAME)
    row = read_rows(folder / "metrics.jsonl")[0]
    assert row["readout"]["mirrorings"] == 0
    assert np.isclose(sum(row["readout"]["unlabeled_prior"]), 1)
    assert row["test"]["balanced_accuracy"] > 0.4  # of ten classes, without a step
    assert digits.test is not None
    answers = predict_logits(model.network, torch.from_numpy(digits.test.images)).argmax(1)
    assert (answers.numpy() == digits.test.labels).mean() == pytest.approx(row["test"]["accuracy"])

    np.save(tmp_path / "some.npy", digits.test.images[:9])
    assert main(["predict", str(folder), str(tmp_path / "some.npy"), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    names = [model.class_names[int(k)] for k in answers[:9]]
    assert [line.split(",")[1] for line in lines] == names
    assert not (folder / "beliefs.safetensors").exists()
    assert main(["report", str(folder), "--refresh", "--device", "cpu"]) == 0
    beliefs = load_file(folder / "beliefs.safetensors")
    share = (beliefs["pool.linear"][:, 0] == beliefs["pool.truth"]).double().mean()
    assert share > 0.4
    assert (folder / "report.html").stat().st_size > 10_000


def flat(pool: DecodedImages | None) -> DecodedImages:
    assert pool is not None
    return DecodedImages(pool.images.reshape(len(pool), 1, 64).astype(np.float32), pool.labels)


@pytest.mark.parametrize(
    "method",
    [
        "fixmatch+daso+mixture",
        "fixmatch+abc+mixture",
        "fixmatch+estimate+darp+mixture",
        "supervised+mixture",
    ],
)
def test_methods_with_heads_prototypes_and_plans(
    method: str, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    options = {} if "fixmatch" not in method else {"threshold": 0.2}
    if "daso" in method:
        options |= {"warmup_steps": 2, "histogram_period": 2, "queue_length": 4}
    if "estimate" in method:
        options |= {"estimate_steps": 2, "darp_start": 0.3, "darp_period": 3}
    folder = train(
        prepare(tiny_config(method, method_options=options, **TWICE), digits), tmp_path / "run"
    )
    model = load_model(folder, CPU, pytest.fail)
    last = read_rows(folder / "metrics.jsonl")[-1]
    again = evaluate_network(model.network, prepare(model.config, digits).data)
    assert again["test"]["balanced_accuracy"] == last["test"]["balanced_accuracy"]
    beliefs = load_file(folder / "beliefs.safetensors")
    share = (beliefs["pool.linear"][:, 0] == beliefs["pool.truth"]).double().mean()
    assert share > 0.4
    if "darp" not in method:  # which has seen too little to refine well
        assert (beliefs["pool.final"] == beliefs["pool.truth"]).double().mean() > 0.3


def test_vectors(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = dataclasses.replace(
        digits, train=flat(digits.train), test=flat(digits.test), mean=None, std=None
    )
    assert vectors.test is not None
    for network in (None, "linear"):
        config = tiny_config("supervised+la+mixture", network=network, **BRIEF)
        prepared = prepare(config, vectors)
        folder = train(prepared, tmp_path / str(network))
        rows = [r for r in read_rows(folder / "metrics.jsonl") if r["event"] == "evaluate"]
        assert min(row["test"]["balanced_accuracy"] for row in rows) > 0.5
        readout = prepared.training.average.network.readout
        assert readout is not None
        assert list(readout.blocks) == ["network"] * (network is None) + ["vector"]
        if network == "linear":  # nothing that is joined changes in training
            assert len({row["test"]["balanced_accuracy"] for row in rows[:-1]}) <= 2
        model = load_model(folder, CPU, pytest.fail)
        found = predict_logits(model.network, torch.from_numpy(vectors.test.images))
        accuracy = (found.argmax(1).numpy() == vectors.test.labels).mean()
        assert accuracy == pytest.approx(rows[-1]["test"]["accuracy"])
    runs = [str(tmp_path / name) for name in ("None", "linear")]
    for command in (["report", runs[0]], ["compare", *runs, "--out", str(tmp_path / "compared")]):
        assert main(command) == 0, capsys.readouterr()


def test_color_images_and_no_unlabeled_ones(
    tiny_config: MakeConfig, make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    for unlabeled in (8, 0):
        images = make_image_folder(unlabeled=unlabeled)
        config = dataclasses.replace(
            tiny_config("supervised+la+mixture", split=SplitOptions(), **TWICE),
            source=str(images),
        )
        folder = train(prepare(config), tmp_path / f"run-{unlabeled}")
        rows = [r for r in read_rows(folder / "metrics.jsonl") if r["event"] == "evaluate"]
        assert rows[0]["test"]["balanced_accuracy"] > 0.9  # a class is a color
        assert ("unlabeled_prior" in rows[0]["readout"]) <= (unlabeled > 0)
        assert rows[0]["readout"]["mirrorings"] in (0, 1)
        load_model(folder, CPU, pytest.fail)


def test_a_weight_that_is_given_is_used(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    options = {"mixture_weight": 0.7, "dimensions": 20}
    prepared = prepare(
        tiny_config("supervised+mixture", method_options=options, **(BRIEF | {"steps": 0})), digits
    )
    folder = train(prepared, tmp_path / "run")
    (row,) = read_rows(folder / "metrics.jsonl")
    assert row["readout"]["unlabeled_weight"] == 0.7
    readout = prepared.training.average.network.readout
    assert readout is not None
    weight, temperature = readout.chosen.tolist()
    assert (weight, temperature) == pytest.approx((0.7, row["readout"]["temperature"]))
    assert readout.weight.shape == (20, 10)
    assert read_json(folder / "config.json")["method_options"]["mixture_weight"] == 0.7
    assert read_json(folder / "summary.json")["deployed_step"] == 0

    with pytest.raises(OptionError, match="readout"):
        prepare(tiny_config("supervised", steps=0), digits)


def test_patches_of_many_images_keep_more_components(
    tiny_config: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(**options: Any) -> int:
        config = tiny_config("supervised+mixture", method_options=options)
        fitter = prepare(config, digits).readout
        assert fitter is not None
        return fitter.dimensions

    assert kept() == 128
    monkeypatch.setattr(readout, "ENOUGH_IMAGES", 100)
    assert kept() == 256
    assert kept(join_patches=False) == 128
    assert kept(dimensions=20) == 20


def test_a_checkpoint_of_an_earlier_readout_is_refused(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    config = tiny_config("supervised+mixture", **BRIEF)
    folder = train(prepare(config, digits), tmp_path / "run", calls=4)
    checkpoint = load_checkpoint(folder / "checkpoints", pytest.fail)
    tensors = {n: t for n, t in checkpoint.tensors.items() if not n.endswith(".share")}
    assert len(tensors) < len(checkpoint.tensors)
    older = dataclasses.replace(checkpoint, tensors=tensors)
    with pytest.raises(RunError, match="earlier version; train the run again"):
        prepare(config, digits).at(older)


def test_patches_of_an_image_are_encoded_once_after_the_first_fit(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = PatchEncoder.forward

    def spy(self: PatchEncoder, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(PatchEncoder, "forward", spy)
    prepared = prepare(tiny_config("supervised+la+mixture", **BRIEF), digits)
    data, run = prepared.data, train_run(prepared, tmp_path / "run")
    next(run)
    assert data.test is not None
    assert data.unlabeled is not None
    seen.clear()
    list(run)  # two evaluations and the beliefs
    assert not seen
    network = prepared.training.average.network
    for pool, index in ((data.test, None), (data.unlabeled, torch.tensor([5, 0, 3]))):
        found, expected = (
            torch.cat(list(represent(network, pool.images, index=index)))
            for represent in (prepared.training.represent, represent_in_batches)
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(readout, "MOST_KNOWN", 1)
    list(prepared.training.represent(network, data.test.images))
    assert sum(seen) > 2 * len(data.test), "too many to keep"


def test_a_trained_network_weighs_less_than_the_patches(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    """Its features fit the labels too well; how much less, an option says."""
    shares = []
    for scale in (None, OVERFIT_SCALE, 1.0):
        options = {"network_scale": scale, "dimensions": 20}
        config = tiny_config("supervised+mixture", method_options=options, **TWICE)
        prepared = prepare(config, digits)
        train(prepared, tmp_path / str(scale))
        readout = prepared.training.average.network.readout
        assert readout is not None
        norms = {name: float(block.share.norm()) for name, block in readout.blocks.items()}
        shares.append(norms["network"] / norms["patches"])
    assert shares[0] == shares[1] < 0.6 * shares[2]


def test_a_frozen_backbone(tiny_config: MakeConfig, digits: Source, tmp_path: Path) -> None:
    """The readout is fitted to embeddings; the model that is loaded computes them from images."""
    backbone = train(
        prepare(tiny_config("supervised", network="wrn-10-1", **TWICE), digits), tmp_path / "base"
    )
    options = {
        "network": str(backbone),
        "freeze": True,
        "embedding_folder": str(tmp_path / "embeddings"),
    }
    assert digits.test is not None
    for network, mirror, mirrorings in (
        ("probe", "none", 0),
        ("probe", "both", 3),
        ("mlp-16-1", "horizontal", 1),
    ):
        config = tiny_config(
            "supervised+la+mixture",
            embedding_network=network,
            method_options={"mirror": mirror},
            **(TWICE | options),
        )
        prepared = prepare(config, digits)
        folder = train(prepared, tmp_path / f"{network}-{mirror}")
        readout = prepared.training.average.network.readout
        assert readout is not None
        assert readout.mirrorings == mirrorings
        assert list(readout.blocks) == ["network"] * (network != "probe") + ["vector"]
        assert prepared.data.test is not None
        expected = predict_logits(prepared.training.average.network, prepared.data.test.images)
        model = load_model(folder, CPU, pytest.fail)
        found = predict_logits(model.network, torch.from_numpy(digits.test.images))
        # Embeddings are stored in float16.
        torch.testing.assert_close(found.softmax(1), expected.softmax(1), atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ["supervised+crt+mixture", "fixmatch+mixture+crt"])
def test_a_plan_whose_last_training_has_no_readout_is_refused(
    method: str, tiny_config: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daso.train.prepare.prepare_backbone", None)  # nothing is computed
    with pytest.raises(OptionError, match="'mixture' has no effect"):
        prepare(tiny_config(method), digits)


def test_names_with_two_readouts_are_refused(tiny_config: MakeConfig, digits: Source) -> None:
    with pytest.raises(OptionError, match="twice"):
        prepare(tiny_config("supervised+mixture+mixture"), digits)
    for options in ({"mixture_weight": -0.1}, {"dimensions": 1}, {"shrinkage": 0.0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            prepare(tiny_config("supervised+mixture", method_options=options), digits)


def test_the_features_of_an_untrained_network_are_not_computed(
    monkeypatch: pytest.MonkeyPatch, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("the first readout reads patches only")

    with monkeypatch.context() as patched:
        patched.setattr(Network, "forward", refuse)
        prepared = prepare(tiny_config("supervised+mixture", **BRIEF), digits)
        folder = train(prepared, tmp_path / "run", 0)
    model = load_model(folder, CPU, pytest.fail)
    assert digits.test is not None
    images = torch.from_numpy(np.asarray(digits.test.images[:8]))
    used = prepared.training.represent(prepared.training.average.network, images)
    torch.testing.assert_close(torch.cat(list(used)), model.network.represent(images))


def test_a_first_model_needs_no_compiler() -> None:
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from daso.nets.network import Network, build_encoder\n"
        "from daso.readout.logistic import fit_logistic\n"
        "from daso.train.options import TrainOptions\n"
        "from daso.train.step.optimizer import make_optimizer\n"
        "network = Network(build_encoder('small', 1, 8), {'class': 2}, [0.5], [0.5])\n"
        "for name in ('sgd', 'adamw'):\n"
        "    options = TrainOptions(optimizer=name)\n"
        "    assert make_optimizer(network, options, 0.1).param_groups\n"
        "fit_logistic(torch.eye(2), torch.eye(2), torch.ones(2))\n"
        "sys.exit('torch._dynamo' in set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
