"""Training on a CUDA device that is pretended: no tensor in the wrong place, no step that waits, steps recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pretend_cuda import DeviceMistakeError, PretendCuda, is_on_device, pretend_cuda
from pretended_training import METHODS, assert_equal, at_home
from torch import Tensor

from daso.cli import main
from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.estimator import DASOClassifier
from daso.evaluate.predict import predict_logits
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Step
from daso.train.loop import fit
from daso.train.model import load_model
from daso.train.prepare import Prepared, prepare
from daso.train.readout import ReadoutFitter
from daso.train.run import resume_run, train_run
from tests.conftest import MakeConfig


def trained_on_cpu(config: Any, source: Source, steps: int) -> dict[str, Tensor]:
    prepared = prepare(config, source)
    for step in range(steps):
        prepared.training.advance(prepared.batches(step))
    return at_home(prepared.training.tensors())


@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_or_mixes_devices(
    method: str, tiny_config: MakeConfig, digits: Source
) -> None:
    config = tiny_config(method, method_options=METHODS[method])
    expected = trained_on_cpu(config, digits, 6)
    with pretend_cuda() as cuda:
        prepared = prepare(
            tiny_config(method, method_options=METHODS[method], device="cuda"), digits
        )
        with cuda.step():
            for step in range(6):
                prepared.training.advance(prepared.batches(step))
        tensors = prepared.training.tensors()
        assert [name for name, value in tensors.items() if not is_on_device(value)] == []
        assert_equal(at_home(tensors), expected)


@pytest.mark.parametrize(
    "options", [{"precision": "bfloat16", "optimizer": "adamw"}, {"layer_decay": 0.5}]
)
def test_no_step_of_other_options_does(
    options: dict[str, Any], cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    prepared = prepare(
        tiny_config("fixmatch+daso", device="cuda", network="wrn-10-1", **options), digits
    )
    with cuda.step():
        for step in range(3):
            prepared.training.advance(prepared.batches(step))
    assert all(is_on_device(value) for value in prepared.training.tensors().values())


def test_color_images_of_other_views_and_sizes(
    cuda: PretendCuda, tiny_config: MakeConfig, make_image_folder: Callable[..., Path]
) -> None:
    config = tiny_config("fixmatch+daso", device="cuda", network="wrn-10-1", resolution=8, batch=4)
    config = dataclasses.replace(
        config,
        source=str(make_image_folder()),
        split=SplitOptions(),
        augmentation=dataclasses.replace(config.augmentation, crop="resized"),
    )
    prepared = prepare(config)
    with cuda.step():
        for step in range(3):
            prepared.training.advance(prepared.batches(step))


class AtOnce:
    """Runs work in the calling thread, the only one that sees the pretended device."""

    def __init__(self, threads: int, thread_name_prefix: str) -> None:
        assert threads == 1

    def submit(self, function: Callable[..., Tensor], *arguments: object) -> Future[Tensor]:
        done: Future[Tensor] = Future()
        done.set_result(function(*arguments))
        return done


def test_images_that_stay_in_a_file(
    cuda: PretendCuda,
    tiny_config: MakeConfig,
    make_image_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daso.train.step.batches.ThreadPoolExecutor", AtOnce)
    config = dataclasses.replace(
        tiny_config("fixmatch+daso", device="cuda", batch=4),
        source=str(make_image_folder()),
        cache=str(tmp_path / "cache"),
        memory=0,
        split=SplitOptions(),
    )
    prepared = prepare(config)
    assert not isinstance(prepared.data.labeled.images, Tensor)
    with cuda.step():
        for step in range(3):
            prepared.training.advance(prepared.batches(step))


def test_frozen_embeddings_as_a_run_makes_them(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source, finished_run: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        "fixmatch+daso",
        device="cuda",
        network=str(finished_run),
        freeze=True,
        embedding_folder=str(tmp_path / "embeddings"),
    )
    prepared = prepare(config, digits)
    assert prepared.data.are_vectors
    with cuda.step():
        for step in range(3):
            prepared.training.advance(prepared.batches(step))


def counted_reads(cuda: PretendCuda, prepared: Prepared) -> int:
    before = cuda.reads
    rows = list(fit(prepared.training, prepared.batches, prepared.data))
    assert [row["event"] for row in rows] == ["train", "evaluate"]
    return cuda.reads - before


def test_steps_between_rows_are_recorded_without_a_wait(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    reads = []
    for steps in (6, 18):  # as many rows, and looks for NaN, of few steps as of many
        config = tiny_config(steps=steps, evaluate_every=steps, log_every=100, device="cuda")
        reads.append(counted_reads(cuda, prepare(config, digits)))
    assert reads[0] == reads[1] > 0


def test_a_run_its_checkpoints_and_its_model(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    config = tiny_config(
        "fixmatch+daso", method_options=METHODS["fixmatch+daso"], steps=10, device="cuda"
    )
    whole = prepare(config, digits)
    list(train_run(whole, tmp_path / "whole"))

    stopped = prepare(config, digits)
    list(train_run(stopped, tmp_path / "stopped", stop=lambda: stopped.training.step >= 7))
    assert stopped.training.step == 7
    resumed, rows = resume_run(tmp_path / "stopped")
    state = resumed.training.tensors().items()
    assert all(is_on_device(value) for name, value in state if not name.startswith("record."))
    list(rows)
    assert_equal(at_home(resumed.training.tensors()), at_home(whole.training.tensors()))

    model = load_model(tmp_path / "whole", torch.device("cuda"), warn=pytest.fail)
    assert is_on_device(next(model.network.parameters()))
    test = whole.data.test
    assert test is not None
    logits = predict_logits(model.network, test.images)
    assert not is_on_device(logits)
    with torch.no_grad():
        again = model.network.classify(model.network.eval()(test.images[:50])).cpu()
    torch.testing.assert_close(logits[:50], again)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_run_with_a_readout_and_its_resumption(
    freeze: bool,
    cuda: PretendCuda,
    tiny_config: MakeConfig,
    digits: Source,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if freeze:
        monkeypatch.setattr(ReadoutFitter, "_joins", [("patches", "vector")])
    frozen = {
        "network": str(finished_run),
        "freeze": True,
        "embedding_network": "mlp-16-1",
        "embedding_folder": str(tmp_path / "embeddings"),
    }
    config = tiny_config(
        "mixtureteacher+la+mixture",
        steps=10,
        evaluate_every=5,
        device="cuda",
        **(frozen if freeze else {}),
    )
    whole = prepare(config, digits)
    list(train_run(whole, tmp_path / "whole"))
    stopped = prepare(config, digits)
    list(train_run(stopped, tmp_path / "stopped", stop=lambda: stopped.training.step >= 7))
    resumed, rows = resume_run(tmp_path / "stopped")
    list(rows)
    assert_equal(at_home(resumed.training.tensors()), at_home(whole.training.tensors()))


@pytest.mark.parametrize("method", ["fixmatch+crest", "fixmatch+crt", "fixmatch+estimate+darp"])
def test_runs_of_several_stages(
    method: str, cuda: PretendCuda, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"generations": 2} if "crest" in method else {}
    config = tiny_config(method, method_options=options, steps=4, evaluate_every=4, device="cuda")
    rows = list(train_run(prepare(config, digits), tmp_path / "run"))
    assert rows[-1]["event"] == "evaluate"


class Planted(FixMatch):
    """FixMatch with a mistake."""

    mistake: Callable[[Tensor, Tensor], object]

    def forward(self, network: Any, teacher: Any, batch: Any) -> Step:
        result = super().forward(network, teacher, batch)
        assert result.pseudo_labels is not None
        self.mistake(result.pseudo_labels.confidence, result.pseudo_labels.labels["final"])
        return result


MISTAKES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a number is read": lambda confidence, labels: confidence.mean().item(),
    "a condition": lambda confidence, labels: 1 if confidence.max() > 0.5 else 0,
    "a list": lambda confidence, labels: labels.tolist(),
    "a copy to the host": lambda confidence, labels: confidence.cpu(),
    "a copy to the host, as numpy has it": lambda confidence, labels: confidence.to("cpu").numpy(),
    "a mask as index": lambda confidence, labels: confidence[confidence > 0.5],
    "numbers where a mask says": lambda confidence, labels: confidence.clone().__setitem__(
        confidence > 0.5, confidence[:1]
    ),
    "rows that are found": lambda confidence, labels: (confidence > 0.5).nonzero(),
    "classes that are there": lambda confidence, labels: labels.unique(),
    "counts of the host's way": lambda confidence, labels: torch.bincount(labels, minlength=10),
    "weights on the host": lambda confidence, labels: confidence * torch.ones(len(confidence)),
    "a table on the host": lambda confidence, labels: torch.ones(10)[labels],
    "an index of the host": lambda confidence, labels: labels[torch.arange(2)],
    "a list as index": lambda confidence, labels: labels[[0, 1]],
    "a range on the host": lambda confidence, labels: labels + torch.arange(len(labels)),
    "numbers moved late": lambda confidence, labels: (
        confidence * torch.ones(len(labels)).to("cuda")
    ),
    "numbers made of a list": lambda confidence, labels: torch.tensor(
        [0.5], device=confidence.device
    ),
    "a generator of the host": lambda confidence, labels: (
        torch.rand(3, device=confidence.device, generator=torch.Generator()) + confidence[:3]
    ),
    "tensors in a list": lambda confidence, labels: torch._foreach_add(
        [confidence], [torch.ones(16)]
    ),
}


def test_planted_mistakes_are_seen(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    prepared = prepare(tiny_config("fixmatch", device="cuda"), digits)
    batch, method = prepared.batches(0), Planted()
    prepared.training._forward = method
    unseen = []
    for name, mistake in MISTAKES.items():
        method.mistake = mistake
        try:
            with cuda.step():
                prepared.training.advance(batch)
            unseen.append(name)
        except DeviceMistakeError:
            pass
    assert unseen == []


def test_a_copy_from_memory_that_is_not_pinned_is_seen(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(tiny_config("fixmatch", device="cuda"), digits)
    monkeypatch.setattr(
        "daso.views.plan.move", lambda tensor, device: tensor.to(device, non_blocking=True)
    )
    with pytest.raises(DeviceMistakeError, match="pinned"), cuda.step():
        prepared.batches(0)


def test_commands_and_the_estimator(
    tiny_config: MakeConfig, digits: Source, finished_run: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    assert digits.test is not None
    pixels = np.asarray(digits.test.images[:5])
    for number, image in enumerate(pixels):
        Image.fromarray(image[0]).save(images / f"{number}.png")
    y = np.where(np.arange(40) < 30, np.asarray(digits.test.labels[:40]), -1)
    X = np.asarray(digits.test.images[:40])  # noqa: N806 - as scikit-learn names it
    answers = {}
    for device in ("cpu", "cuda"):
        with pretend_cuda():
            out = tmp_path / f"{device}.csv"
            predict = ["predict", str(finished_run), str(images), "--out", str(out)]
            assert main([*predict, "--device", device]) == 0
            assert main(["evaluate", str(finished_run), "--device", device]) == 0
            estimator = DASOClassifier(
                steps=4,
                batch_size=8,
                device=device,
                random_state=0,
                train_options={"precision": "float32"},
            ).fit(X, y)
            answers[device] = out.read_text(), estimator.predict_proba(X)
    assert answers["cpu"][0] == answers["cuda"][0]
    np.testing.assert_allclose(answers["cpu"][1], answers["cuda"][1], rtol=1e-5)
