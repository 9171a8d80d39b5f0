"""Exports of runs that are not plain: on vectors, on a frozen backbone, with an encoder from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import daso
from daso.cli import main
from daso.data.source import Source
from daso.errors import OptionError
from daso.export.run import export_run
from daso.train.prepare import prepare
from daso.train.readout import ReadoutFitter
from daso.train.run import train_run
from tests.conftest import MakeConfig


def silent(_: str) -> None:
    pass


def test_a_run_on_vectors(
    tiny_config: MakeConfig, vectors: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    list(train_run(prepare(tiny_config("fixmatch+daso", network=None), vectors), run))
    some = vectors.test.images[:30, 0] if vectors.test else np.zeros(0)
    expected = daso.load(run, "cpu").predict(some).probabilities
    export_run(run, "torch", images=some, warn=silent)
    export_run(run, "safetensors", images=some, warn=silent)
    again = daso.load(run / "model.safetensors", "cpu").predict(some).probabilities
    np.testing.assert_allclose(again, expected, atol=1e-6)
    assert "float32 vectors, N x 64" in (run / "model.pt2.md").read_text()

    np.save(tmp_path / "some.npy", some)
    command = ["predict", str(run), str(tmp_path / "some.npy"), "--probabilities"]
    assert main([*command, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    given = np.array([[float(value) for value in line.split(",")[3:13]] for line in lines])
    np.testing.assert_allclose(given, expected, atol=1e-6)
    (tmp_path / "image.png").write_bytes(b"")
    assert main(["predict", str(run), str(tmp_path / "image.png"), "--device", "cpu"]) == 1
    assert "takes vectors" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["supervised", "supervised+la+mixture"])
def test_a_run_on_a_frozen_backbone_takes_images(
    method: str,
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ReadoutFitter, "_joins", [("patches", "vector")])
    backbone, run = tmp_path / "backbone-run", tmp_path / "run"
    list(train_run(prepare(tiny_config("supervised", network="wrn-10-1"), digits), backbone))
    options = {
        "network": str(backbone),
        "freeze": True,
        "embedding_folder": str(tmp_path / "embeddings"),
    }
    list(train_run(prepare(tiny_config(method, **options), digits), run))
    for kind in ("torch", "safetensors"):
        assert export_run(run, kind, warn=silent).check.what == "test images"
    assert digits.test is not None
    images = digits.test.images[:20]
    moved = tmp_path / "model.safetensors"
    (run / "model.safetensors").rename(moved)
    assert str(tmp_path).encode() not in moved.read_bytes()
    expected = daso.load(run, "cpu", warn=silent).predict(images).probabilities
    np.testing.assert_allclose(
        daso.load(moved, "cpu").predict(images).probabilities, expected, atol=1e-6
    )


def test_a_run_with_an_encoder_from_python(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    encoder = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    run = tmp_path / "run"
    list(train_run(prepare(tiny_config("supervised", network=None), digits, encoder=encoder), run))
    with pytest.raises(OptionError, match="came from Python"):
        export_run(run, "safetensors", warn=silent)
    assert not list(run.glob("*model*"))
    for kind in ("torch", "safetensors"):
        export_run(run, kind, encoder=encoder, warn=silent)
    images = digits.train.images[:20]
    expected = daso.load(run, "cpu", encoder=encoder).predict(images).probabilities
    again = (
        daso.load(run / "model.safetensors", "cpu", encoder=encoder).predict(images).probabilities
    )
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_a_run_in_bfloat16_tells_how_far_its_files_are(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    config = tiny_config("supervised", precision="bfloat16", learning_rate=0.1, steps=60)
    list(train_run(prepare(config, digits), folder))
    assert digits.test is not None
    images = digits.test.images[:64]
    np.save(tmp_path / "digits.npy", images)
    as_trained = daso.load(folder, "cpu").predict(images)
    whole = daso.load(folder, "cpu", precision="float32").predict(images)
    apart = np.abs(as_trained.probabilities - whole.probabilities).max()
    assert apart > 1e-4  # more than any exported file may differ from its original
    same = int((as_trained.labels == whole.labels).sum())
    for kind, name in (("onnx", "model.onnx"), ("safetensors", "model.safetensors")):
        assert (
            main(
                ["export", str(folder), "--format", kind, "--images", str(tmp_path / "digits.npy")]
            )
            == 0
        )
        assert f"the same class for {same} of them" in capsys.readouterr().out
        found = daso.load(folder / name, "cpu").predict(images).probabilities
        np.testing.assert_allclose(found, whole.probabilities, atol=1e-4)
        card = (folder / f"{name}.md").read_text()
        assert (
            f"same class to {same} of these images, with probabilities up to {apart:.2g} apart"
            in card
        )
    assert main(["predict", str(folder), "digits.npy", "--precision", "float64"]) == 2
    with pytest.raises(OptionError, match="computes in float32"):
        daso.load(folder / "model.onnx", precision="bfloat16")
    with pytest.raises(OptionError, match=r"precision.*invalid choice"):
        daso.load(folder, precision="float16")  # type: ignore[arg-type]


def test_the_card_tells_labels_that_were_trained_on_from_those_held_out(
    make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    images = make_image_folder(labeled=12, val=0, test=0)  # 12, 11 and 10 of the classes
    for holdout in (6, 0):
        run = tmp_path / f"run-{holdout}"
        steps = ["--method", "supervised", "--steps", "2", "--network", "small", "--batch", "4"]
        options = [*steps, "--holdout", str(holdout), "--device", "cpu", "--quiet"]
        assert main(["train", str(images), "--out", str(run), *options]) == 0
        checked = export_run(run, "safetensors", warn=silent).check
        card = (run / "model.safetensors.md").read_text()
        assert f"Trained on {33 - holdout} labeled images" in card
        assert f"not trained on {holdout} held-out labeled images" in card
        assert checked.images == 33
        assert checked.what == ("labeled or held-out images" if holdout else "labeled images")
