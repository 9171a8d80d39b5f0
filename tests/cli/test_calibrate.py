"""Calibration after training, on labels that the training has not seen; and features in Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import daso
from daso.cli import main
from daso.errors import OptionError
from daso.evaluate.calibration import fit_temperature
from daso.files import read_json
from daso.train.model import load_model
from tests.cli.test_advice import QUICK, tiny

Capture = pytest.CaptureFixture[str]


def calibrate(capsys: Capture, *words: object) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["calibrate", *map(str, words), "--device", "cpu"])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run without a hold-out, its images, and further labeled ones."""
    place = tmp_path_factory.mktemp("calibrate")
    tiny(place / "images", unlabeled=4, test=2)
    tiny(place / "more", (0, 0, 0), val=25)
    for path in (place / "more" / "val").rglob("*.png"):  # other pixels than those of the images
        pixels = np.asarray(Image.open(path)).astype(int)
        Image.fromarray((pixels + 3).clip(0, 255).astype(np.uint8)).save(path)
    options = [*QUICK, "--holdout", "0", "--out", place / "run"]
    words = [*map(str, (place / "images", *options))]
    assert main(["train", *words]) == 0
    return place


def test_further_labels_calibrate_what_predict_answers(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    run, more = tmp_path / "run", trained / "more" / "val"
    shutil.copytree(trained / "run", run)
    assert read_json(run / "calibration.json")["note"] is not None
    before = daso.load(run, "cpu", warn=lambda _: None)
    files = sorted(more.rglob("*.png"))
    labels = np.array([("cat", "dog", "emu").index(path.parent.name) for path in files])
    probs = before.predict(files).probabilities
    temperature = fit_temperature(np.log(probs), labels)
    status, said = calibrate(capsys, run, more)
    assert status == 0
    assert f"temperature {temperature:.3f}, fitted on 75 labeled images" in said
    after = daso.load(run, "cpu", warn=pytest.fail)
    expected = probs ** (1 / temperature)
    found = after.predict(files).probabilities
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-5)
    # Neither resuming nor reporting loses it, and the report and the card name it.
    kept = (run / "calibration.json").read_bytes()
    assert main(["resume", str(run)]) == 0
    assert (run / "calibration.json").read_bytes() == kept
    assert main(["export", str(run), "--format", "safetensors"]) == 0
    assert "further labeled images" in (run / "model.safetensors.md").read_text()
    exported = daso.load(run / "model.safetensors", "cpu")
    np.testing.assert_allclose(exported.predict(files[:5]).probabilities, found[:5], atol=1e-6)


def test_what_cannot_calibrate_is_refused_and_changes_nothing(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    run, more = trained / "run", tmp_path / "more"
    kept = (run / "calibration.json").read_bytes()
    shutil.copytree(trained / "more" / "val", more)
    images = trained / "images"
    seen = {
        "labeled": next((images / "labeled" / "dog").glob("*.png")),
        "unlabeled": next((images / "unlabeled").glob("1-*.png")),
        "test": next((images / "test" / "dog").glob("*.png")),
    }
    few = shutil.copytree(more, tmp_path / "few", ignore=lambda _, names: sorted(names)[3:])
    cases: list[tuple[Path, str]] = [
        (few, "few has 9 labeled images; give 50 or more"),
        (images / "labeled", "22 of 22 images are the run's own"),
        (tmp_path / "nowhere", "no such source"),
    ]
    for name, path in seen.items():
        place = shutil.copytree(more, tmp_path / name)
        with Image.open(path) as image:
            image.save(place / "dog" / "again.tif")  # the same pixels in another file
        cases.append((place, f"again.tif is one of the run's {name} images"))
    other = shutil.copytree(more, tmp_path / "other")
    (other / "emu").rename(other / "emus")
    cases.append((other, "Did you mean 'emu'?"))
    broken = shutil.copytree(more, tmp_path / "broken")
    (broken / "emu" / "broken.png").write_bytes(b"no image")
    cases.append((broken, "broken.png"))
    shutil.copytree(more / "emu", tmp_path / "one" / "emu")
    cases.append((tmp_path / "one", "two class folders"))
    for place, words in cases:
        status, said = calibrate(capsys, run, place)
        assert status in (1, 2), place
        assert words in said, said
    status, said = calibrate(capsys, run)
    assert status == 1
    assert "no hold-out" in said
    assert (run / "calibration.json").read_bytes() == kept


def test_what_is_not_used_of_further_images_is_told(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "more" / "val", tmp_path / "more" / "labeled")
    shutil.copytree(trained / "more" / "val" / "cat", tmp_path / "more" / "test" / "cat")
    (tmp_path / "more" / "labeled" / "cat" / "x.jp2").touch()
    status, said = calibrate(capsys, tmp_path / "run", tmp_path / "more")
    assert status == 0
    assert f"{tmp_path / 'more'}: its test images are not used" in said
    assert "not read: 1 .jp2 file" in said


def test_a_run_is_calibrated_on_its_hold_out_again(finished_run: Path, capsys: Capture) -> None:
    kept = read_json(finished_run / "calibration.json")
    (finished_run / "calibration.json").unlink()
    assert calibrate(capsys, finished_run)[0] == 0
    assert read_json(finished_run / "calibration.json") == kept
    status, said = calibrate(capsys, finished_run, finished_run, "--data", "/nowhere")
    assert status in (1, 2)
    assert "Traceback" not in said


@pytest.mark.slow
def test_features_in_python(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    model = daso.load(trained / "run", "cpu", warn=lambda _: None)
    files = sorted((trained / "more" / "val").rglob("*.png"))[:7]
    features = model.embed(files)
    assert features.dtype == np.float32
    assert features.shape[0] == 7
    assert np.array_equal(model.embed(files[0]), model.embed([Image.open(files[0])]))
    assert model.embed([]).shape == (0, features.shape[1])
    network = load_model(trained / "run", torch.device("cpu"), lambda _: None).network
    logits = network.classify(torch.from_numpy(features), network.output)
    np.testing.assert_allclose(
        logits.double().softmax(1).detach().numpy(),
        model.predict(files).probabilities,
        atol=1e-6,
    )
    exported = tmp_path / "model.onnx"
    pytest.importorskip("onnx")
    assert main(["export", str(trained / "run"), "--out", str(exported)]) == 0
    with pytest.raises(OptionError, match="run folder"):
        daso.load(exported).embed(files)
