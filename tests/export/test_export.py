"""Exported files answer as the run does, say what they are, hold no paths of this machine, and never half exist."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torch_alone
from forked import finish, start
from safetensors import safe_open

import daso
from daso.cli import main
from daso.data.source import Source
from daso.errors import RunError
from daso.export import formats
from daso.export.graph import Deployed
from daso.export.run import TOLERANCE, export_run
from daso.files import read_json, save_json
from daso.nets.encoders.patches import resizing_matrix
from daso.nets.network import Network, build_encoder
from daso.train.prepare import prepare
from daso.train.run import train_run

MakeConfig = Callable[..., object]
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


@pytest.fixture(scope="module")
def run_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: MakeConfig, digits: Source
) -> Path:
    """Return a run with two heads, of which the second classifies, and a temperature that is not 1."""
    folder = tmp_path_factory.mktemp("exports") / "run"
    options = {"threshold": 0.2}
    list(train_run(prepare(tiny_config("fixmatch+abc", method_options=options), digits), folder))
    calibration = read_json(folder / "calibration.json")
    save_json(folder / "calibration.json", calibration | {"temperature": 0.2, "note": None})
    return folder


@pytest.fixture(scope="module")
def exported(run_folder: Path) -> dict[str, Path]:
    """Return the run in all formats."""
    for kind in SUFFIXES:
        assert main(["export", str(run_folder), "--format", kind]) == 0
    return {kind: run_folder / f"model{suffix}" for kind, suffix in SUFFIXES.items()}


def pixels(digits: Source) -> np.ndarray:
    return digits.train.images[::17]


def expected(run_folder: Path, images: np.ndarray) -> np.ndarray:
    """Compute the probabilities from the weights of the run's checkpoint, layer by layer."""
    newest = max((run_folder / "checkpoints").glob("*.safetensors"))
    data = read_json(run_folder / "data.json")
    with safe_open(newest, "pt") as file:
        state = {
            n[len("average.") :]: file.get_tensor(n)
            for n in file.keys()  # noqa: SIM118
            if n.startswith("average.")
        }
    x = (torch.from_numpy(images).float() / 255 - data["mean"][0]) / data["std"][0]
    for layer, stride in enumerate((1, 2, 1, 2)):
        x = F.conv2d(x, state[f"encoder.convolutions.{layer}.weight"], stride=stride, padding=1)
        norm = {
            name: state[f"encoder.norms.{layer}.{name}"]
            for name in ("running_mean", "running_var", "weight", "bias")
        }
        x = F.leaky_relu(F.batch_norm(x, *norm.values()), 0.1)
    logits = F.linear(x.mean((2, 3)), state["heads.abc.weight"], state["heads.abc.bias"])
    return (logits / 0.2).softmax(1).numpy()


def test_the_run_itself_answers_as_its_weights_say(run_folder: Path, digits: Source) -> None:
    probs = daso.load(run_folder, "cpu").predict(pixels(digits)).probabilities
    np.testing.assert_allclose(probs, expected(run_folder, pixels(digits)), atol=1e-5)
    assert probs.max() > 0.3  # far from uniform, so that a lost temperature would show


def test_onnx_answers_alike_for_any_batch(
    exported: dict[str, Path], run_folder: Path, digits: Source
) -> None:
    session = onnxruntime.InferenceSession(exported["onnx"], providers=["CPUExecutionProvider"])
    (taken,), (made,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 1, 8, 8])
    assert (made.name, made.shape) == ("probabilities", ["batch", 10])
    for count in (1, 3, 100):
        images = pixels(digits)[:count]
        probs = session.run(None, {"images": images})[0]
        np.testing.assert_allclose(probs, expected(run_folder, images), atol=1e-5)
    onnx.checker.check_model(onnx.load(exported["onnx"]), full_check=True)


def test_torch_answers_alike_where_daso_is_not_installed(
    exported: dict[str, Path], run_folder: Path, digits: Source, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", pixels(digits))
    assert finish(start(torch_alone.answer, exported["torch"], tmp_path)) == 0
    probs = np.load(tmp_path / "probs.npy")
    np.testing.assert_allclose(probs, expected(run_folder, pixels(digits)), atol=1e-5)


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_daso_load_reads_exported_files(
    exported: dict[str, Path], run_folder: Path, digits: Source, kind: str, tmp_path: Path
) -> None:
    alone = tmp_path / exported[kind].name
    alone.write_bytes(exported[kind].read_bytes())
    original, model = daso.load(run_folder, "cpu"), daso.load(alone, "cpu")
    assert model.class_names == original.class_names
    assert model.facts == original.facts
    images = pixels(digits)
    for prior in (None, "labeled"):
        answers = model.predict(images, prior=prior).probabilities
        np.testing.assert_allclose(
            answers, original.predict(images, prior=prior).probabilities, atol=1e-5
        )


def test_safetensors_leave_out_what_does_not_classify(exported: dict[str, Path]) -> None:
    with safe_open(exported["safetensors"], "pt") as file:
        names = set(file.keys())
    assert "heads.abc.weight" in names
    assert not any(name.startswith(("heads.class", "network.", "momentum.")) for name in names)


def test_files_hold_no_path_of_this_machine(exported: dict[str, Path], run_folder: Path) -> None:
    here = str(Path(daso.__file__).parent).encode()
    for path in exported.values():
        contents = [path.read_bytes()]
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in archive.namelist()]
        for content in contents:
            for telling in (here, str(run_folder).encode(), sys.executable.encode(), b'.py"'):
                assert telling not in content, (path, telling)


def test_the_card_says_what_the_run_folder_says(
    exported: dict[str, Path], run_folder: Path
) -> None:
    card = exported["onnx"].with_name("model.onnx.md").read_text()
    confusion = np.array(read_json(run_folder / "confusion.json")["counts"])
    counts = read_json(run_folder / "data.json")["labeled_counts"]
    rows = [line.strip("|").split("|") for line in card.splitlines() if line.startswith("| ")]
    for label in range(10):
        row = next([cell.strip() for cell in row] for row in rows if row[0].strip() == str(label))
        assert int(row[1]) == counts[label]
        assert float(row[2]) == pytest.approx(
            100 * confusion[label, label] / confusion[label].sum(), abs=0.051
        )
        assert int(row[4]) == confusion[label].sum()
    assert "temperature 0.200" in card
    assert "64 test images" in card
    assert read_json(run_folder / "data.json")["split_fingerprint"] in card
    rare = ", ".join(str(label) for label in range(10) if counts[label] < 10)
    assert f"Fewer than 10 labeled images each: {rare}." in card


def test_a_file_that_answers_otherwise_is_not_kept(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Deployed):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            probs = super().forward(images)
            return probs * (1 - 3 * TOLERANCE)

    monkeypatch.setattr(formats, "Deployed", Wrong)
    with pytest.raises(RunError, match="differs from the original"):
        export_run(run_folder, "torch", tmp_path / "wrong.pt2")
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_written(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for out, status in (("model.pt2", 2), ("gone/model.onnx", 1), ("folder.onnx", 1)):
        assert main(["export", str(finished_run), "--out", str(tmp_path / out)]) == status
        assert out in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finished", "folder.onnx"]


def test_images_to_compare_on_can_be_named(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_json(finished_run / "config.json")
    save_json(finished_run / "config.json", config | {"source": str(tmp_path / "gone")})
    command = ["export", str(finished_run), "--format", "safetensors"]
    assert main(command) == 1
    assert "--images" in capsys.readouterr().err
    assert not list(finished_run.glob("model*"))
    np.save(
        tmp_path / "some.npy", np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    )
    assert main([*command, "--images", str(tmp_path / "some.npy")]) == 0
    assert "5 given images" in capsys.readouterr().out


def test_a_run_of_an_image_folder_is_checked_on_its_files(
    make_image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = make_image_folder(), tmp_path / "run"
    options = "--method supervised --network small-4 --steps 4 --batch 8 --device cpu"
    assert main(["train", str(images), *options.split(), "--out", str(run)]) == 0
    (images / "test" / "red" / "003.png").write_bytes(b"no image")
    file = tmp_path / "red.safetensors"
    assert main(["export", str(run), "--format", "safetensors", "--out", str(file)]) == 0
    assert "on 11 test images" in capsys.readouterr().out
    content = (tmp_path / "red.safetensors").read_bytes()
    assert str(images.parent).encode() not in content
    model = daso.load(tmp_path / "red.safetensors", "cpu")
    assert model.class_names == ("blue", "green", "red")
    assert "not calibrated" in (tmp_path / "red.safetensors.md").read_text()


@pytest.mark.parametrize("deploy", ["last", "best"])
def test_the_card_says_what_the_hold_out_served_for(
    deploy: str, make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run, file = tmp_path / "run", tmp_path / "model.safetensors"
    options = "--method supervised --network small-4 --steps 4 --batch 8 --device cpu"
    places = [str(make_image_folder(test=0)), "--out", str(run), "--deploy", deploy]
    assert main(["train", *places, *options.split()]) == 0
    assert main(["export", str(run), "--format", "safetensors", "--out", str(file)]) == 0
    card = (tmp_path / "model.safetensors.md").read_text()
    assert "and to calibrate" not in card  # six images are too few to
    assert ("used to choose the network:" in card) == (deploy == "best")


def test_resizing_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    for mode in ("bilinear", "bicubic"):
        for before, after in ((96, 32), (8, 12), (33, 10)):
            images = torch.randint(0, 256, (3, 2, before, before), generator=generator).double()
            matrix = resizing_matrix(before, after, mode).double()
            resized = F.interpolate(images, (after, after), mode=mode, antialias=True)
            torch.testing.assert_close(matrix @ images @ matrix.t(), resized, atol=2e-4, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "channels", "size", "resolution"),
    [
        ("wrn-10-1", 3, 32, None),
        ("wrn-10-1", 3, 48, 32),
        ("resnet18", 3, 32, None),
        ("small-4", 1, 9, None),
    ],
)
def test_the_graph_of_every_network(
    name: str, channels: int, size: int, resolution: int | None
) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, channels, resolution or size)
    network = Network(
        encoder,
        {"class": 5, "abc": 5},
        [0.4] * channels,
        [0.3] * channels,
        "float32",
        resolution,
        "abc",
    )
    network.eval()
    images = torch.randint(0, 256, (6, channels, size, size), dtype=torch.uint8)
    shape = (channels, size, size)
    module = Deployed(network, shape, 1.7).eval()
    batch = torch.export.Dim("batch", min=1)
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    traced = torch.export.export(module, (example,), dynamic_shapes={"images": {0: batch}}).module()
    with torch.no_grad():
        logits = network.classify(network(images), "abc")
        torch.testing.assert_close(traced(images), (logits / 1.7).softmax(1), atol=1e-5, rtol=1e-4)
        assert (traced(images).argmax(1) == logits.argmax(1)).all()


def test_facts_survive_as_plain_json(exported: dict[str, Path], run_folder: Path) -> None:
    session = onnxruntime.InferenceSession(exported["onnx"], providers=["CPUExecutionProvider"])
    metadata = {
        name: json.loads(value)
        for name, value in session.get_modelmeta().custom_metadata_map.items()
    }
    assert metadata["class_names"] == [str(k) for k in range(10)]
    assert metadata["balanced_by"] == ["abc"]
    assert metadata["temperature"] == 0.2
    assert metadata["provenance"]["data"] == "digits"
    assert metadata["step"] == read_json(run_folder / "summary.json")["steps"]
