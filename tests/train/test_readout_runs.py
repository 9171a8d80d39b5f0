"""Runs with a readout: resumed anywhere they end the same, and everything that reads a run reads them."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from run_files import assert_same_run, train
from safetensors.torch import load_file

from daso.cli import main
from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.errors import DivergedError, OptionError, RunError
from daso.evaluate.predict import predict_logits
from daso.files import read_rows
from daso.methods.method import Batch, Step
from daso.nets.readout import NAME
from daso.train import readout
from daso.train.evaluation import evaluate_network
from daso.train.folder.checkpoint import load_checkpoint
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.readout import ReadoutFitter
from daso.train.run import resume_run, train_run
from daso.train.step.state import Training
from tests.conftest import MakeConfig, MakeFolder

CPU = torch.device("cpu")
STEPS = 7
BRIEF = {"steps": STEPS, "evaluate_every": 3, "log_every": 2}
TWICE = BRIEF | {"evaluate_every": STEPS}
"""Options of a run that fits its readout at the start and at the end."""
CREST = {"generations": 2, "threshold": 0.2}


def silent(_: str) -> None:
    pass


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
    tiny_config: MakeConfig, vectors: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_a_frozen_backbone(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    for network, mirror, mirrorings, joined in (
        ("probe", "none", 0, [("vector",)]),
        ("probe", "both", 3, [("patches", "vector")]),
        ("probe", "none", 0, [("patches", "vector")]),
        ("probe", "none", 0, None),
        ("mlp-16-1", "horizontal", 1, [("patches", "vector")]),
    ):
        config = tiny_config(
            "supervised+la+mixture",
            embedding_network=network,
            method_options={"mirror": mirror},
            **(TWICE | options),
        )
        with monkeypatch.context() as patch:
            if joined is not None:  # else the labels choose
                patch.setattr(ReadoutFitter, "_joins", joined)
            prepared = prepare(config, digits)
            folder = train(prepared, tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        readout = prepared.training.average.network.readout
        assert readout is not None
        assert readout.mirrorings == mirrorings
        chosen = read_rows(folder / "metrics.jsonl")[0]["readout"]["patches"]
        kinds = ("patches",) * chosen + ("vector",)
        assert tuple(readout.blocks) == ("network",) * (network != "probe") + kinds
        assert joined in (None, [kinds])
        assert prepared.data.test is not None
        expected = predict_logits(prepared.training.average.network, prepared.data.test.images)
        model = load_model(folder, CPU, pytest.fail)
        found = predict_logits(model.network, torch.from_numpy(digits.test.images))
        # Embeddings are stored in float16.
        torch.testing.assert_close(found.softmax(1), expected.softmax(1), atol=0.02, rtol=0)


@pytest.mark.parametrize("joined", [("vector",), ("patches", "vector")])
def test_a_stopped_run_on_embeddings_goes_on_with_its_own_patches(
    joined: tuple[str, ...],
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brief = tiny_config("supervised", network="wrn-10-1", **(TWICE | {"steps": 1}))
    options = {
        "network": str(train(prepare(brief, digits), tmp_path / "base")),
        "freeze": True,
        "embedding_network": "mlp-16-1",
        "embedding_folder": str(tmp_path / "embeddings"),
    }
    config = tiny_config("mixtureteacher+la+mixture", **(BRIEF | options))
    monkeypatch.setattr(ReadoutFitter, "_joins", [joined])
    whole = train(prepare(config, digits), tmp_path / "whole")
    stopped = train(prepare(config, digits), tmp_path / "stopped", 4)
    # Learned on another machine, they might be others.
    monkeypatch.setattr("daso.train.encoder.patch_features.learn_patches", None)
    list(resume_run(stopped, pytest.fail)[1])
    assert_same_run(whole, stopped)


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
