"""Advice to several processes and in Python, done as it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from advice import trained
from label_sets import write_folder

import daso
from daso.cli.processes.torchrun import _device_of
from daso.errors import DataError, OptionError, RunError
from daso.files import read_json
from daso.label import features
from daso.nets.network import Network, build_encoder
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import select, table_cells
from daso.reproduce.same_run import check_same
from daso.reproduce.scales import SCALES
from daso.train.config import RunConfig
from tests.conftest import Say


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("elsewhere")
    trained(str(write_folder(place / "photos")), "--out", str(place / "run"))
    return place


def test_processes_get_devices_as_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"cannot train on --device \S+; omit it, or use cpu"):
        _device_of("cuda:7", 0, 2)
    assert _device_of("cpu", 0, 2) == "cpu"
    assert _device_of("auto", 0, 2) in ("cpu", "cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with pytest.raises(OptionError, match=r"use torchrun --nproc-per-node 2$"):
        _device_of("auto", 2, 3)
    assert [_device_of("auto", local, 2) for local in range(2)] == ["cuda:0", "cuda:1"]


class TwoProcesses:
    """What a network sees of two processes, of which this is the first."""

    size = 2

    def share(self, images: torch.Tensor) -> torch.Tensor:
        return images[: len(images) // 2]

    def gather(self, features: torch.Tensor, count: int) -> torch.Tensor:
        return torch.cat([features, features])[:count]


def test_a_batch_is_shared_as_advised() -> None:
    network = Network(build_encoder("small-4", 1, 8), {"class": 3}, [0.5], [0.5])
    network.processes = TwoProcesses()  # type: ignore[assignment]
    with pytest.raises(OptionError, match=r"--batch must be a multiple of 2$"):
        network(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert len(network(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))) == 4


def test_features_and_folders_in_python(place: Path, say: Say, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run, photos = place / "run", place / "photos" / "test"
    assert say("export", run, "--format", "onnx", "--out", tmp_path / "m.onnx")[0] == 0
    model = daso.load(tmp_path / "m.onnx", warn=lambda _: None)
    files = sorted(photos.rglob("*.png"))
    with pytest.raises(OptionError, match="load the run folder, or export it with --format safete"):
        model.embed(files)
    assert (
        say("export", run, "--format", "safetensors", "--out", tmp_path / "m.safetensors")[0] == 0
    )
    of_run, of_file = (
        daso.load(path, "cpu", precision="float32", warn=lambda _: None).embed(files)
        for path in (run, tmp_path / "m.safetensors")
    )
    np.testing.assert_allclose(of_run, of_file, atol=1e-5)

    with pytest.raises(
        DataError, match=r"sorted\(Path\(folder\).*'daso predict MODEL FOLDER' take"
    ):
        model.predict(photos)
    assert len(model.predict(files)) == 4
    status, said = say("predict", tmp_path / "m.onnx", photos)
    assert status == 0, said


def test_a_pt_file_is_not_loaded_and_what_is_named_instead_is(place: Path, say: Say) -> None:
    file = place / "model.pt"
    torch.save({}, file)
    status, said = say("predict", file, place / "photos" / "test")
    assert status == 2
    assert "Use a run folder, .onnx or .safetensors" in said
    assert say("predict", place / "run", place / "photos" / "test")[0] == 0


def test_images_of_which_none_can_be_read_are_found_by_the_check(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_folder(tmp_path / "photos")
    files = sorted((photos / "unlabeled").iterdir())
    for file in files:
        file.write_bytes(b"no image")

    class Unreadable:
        def __len__(self) -> int:
            return len(files)

        def read(self, number: int) -> Path:
            return files[number]

    with pytest.raises(DataError, match="look at them with daso data check"):
        features._layout(Unreadable(), np.random.default_rng(0))  # type: ignore[arg-type]
    status, said = say("data", "check", photos, "--all")
    assert status == 1
    assert all(file.name in said for file in files)


def test_runs_of_another_configuration_make_way_as_advised(place: Path, tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "a", SCALES["smoke"], device="cpu")
    (part,) = select(["1"], ["supervised"], ["cifar10-n500-g100"])
    (cell,), _ = table_cells([part], [0])
    folder = campaign.folder_of(cell)
    folder.mkdir(parents=True)
    saved = read_json(place / "run" / "config.json")
    (folder / "config.json").write_text(json.dumps(saved))
    config = RunConfig.read(folder)
    other = dataclasses.replace(config, method="fixmatch")
    with pytest.raises(RunError, match="Move it away, or use another folder with --out"):
        check_same(other, config, folder)
    assert campaign.state(cell) == "of another configuration"
    assert Campaign(tmp_path / "b", SCALES["smoke"]).state(cell) == "missing"
    folder.rename(tmp_path / "away")
    assert campaign.state(cell) == "missing"
