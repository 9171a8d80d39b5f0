"""Advice where the network, or a file of it, is missing, done as it says."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from advice import TRAIN, quick
from label_sets import write_folder

from daso.data import open as opening
from daso.data.benchmarks.cifar import CIFAR10
from daso.nets.pretrained.timm_import import import_timm
from tests.conftest import Say

CIFAR = (
    "--labeled-head 9 --gamma-labeled 3 --unlabeled-head 9 --gamma-unlabeled 1 --method supervised"
)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_folder(tmp_path / "photos")


def train(say: Say, command: str) -> tuple[int, str]:
    shutil.rmtree("new", ignore_errors=True)
    return say(*shlex.split(command), *quick(command))


def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(pytest.importorskip("huggingface_hub").HfApi, "model_info", unreachable)


@pytest.mark.usefixtures("photos")
def test_a_model_of_the_hub_is_taken_from_a_folder(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    no_hub(monkeypatch)
    status, said = train(say, f"{TRAIN} --network hf:nobody/vit --freeze")
    assert status == 2
    assert "hf download nobody/vit --include '*.json' '*.safetensors' --local-dir FOLDER" in said
    assert said.endswith('--local-dir FOLDER"; then use --network FOLDER\n')
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(**sizes, intermediate_size=8, image_size=8, patch_size=4)
    transformers.ViTModel(config).save_pretrained("FOLDER")
    Path("FOLDER/preprocessor_config.json").write_text('{"size": {"height": 8, "width": 8}}')
    files = {path.suffix for path in Path("FOLDER").iterdir()}
    assert files == {".json", ".safetensors"}, "that is what the command downloads"
    status, said = train(say, f"{TRAIN} --network FOLDER --freeze")
    assert status == 0, said


@pytest.mark.usefixtures("photos")
def test_a_model_of_timm_is_taken_from_a_folder(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    no_hub(monkeypatch)
    words = f"{TRAIN} --network timm:test_vit --freeze --resolution 32"
    status, said = train(say, words)
    assert status == 2
    assert '--local-dir FOLDER"; then use --weights FOLDER/model.safetensors\n' in said
    Path("FOLDER").mkdir()
    tensors = import_timm().create_model("test_vit").state_dict()
    safetensors.torch.save_file(tensors, "FOLDER/model.safetensors")
    status, said = train(say, f"{words} --weights FOLDER/model.safetensors")
    assert status == 0, said


def test_images_of_the_hub_are_fetched_or_copied(
    photos: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    images = datasets.load_dataset(str(photos / "labeled"), cache_dir="images")

    def load(name: str, configuration: str | None) -> object:
        if datasets.config.HF_HUB_OFFLINE:
            raise ConnectionError("offline")
        return images

    monkeypatch.setattr(datasets, "load_dataset", load)
    words = "train hf:nobody/pets --method supervised --size 8 --out new"
    status, said = train(say, words)
    assert status == 1
    assert "add --download to fetch it. Without a network: save_to_disk() it elsewhere" in said
    status, said = train(say, f"{words} --download")
    assert status == 0, said
    images.save_to_disk("saved")
    status, said = train(say, words.replace("hf:nobody/pets", "saved"))
    assert status == 0, said


@pytest.mark.usefixtures("photos")
def test_a_named_data_set_is_given_or_fetched(
    say: Say, monkeypatch: pytest.MonkeyPatch, cifar10_folder: Path
) -> None:
    words = f"train cifar10 {CIFAR} --out new"
    status, said = train(say, words)
    assert status == 1
    assert "give their place with --data, or add --download." in said
    assert "and give their place with --data" in said
    status, said = train(say, f"{words} --data {cifar10_folder / 'cifar10'}")
    assert status == 0, said

    def download(*_: object) -> Path:
        return Path(shutil.copytree(cifar10_folder / "cifar10" / CIFAR10.folder, "fetched"))

    monkeypatch.setattr(opening, "download", download)
    status, said = train(say, f"{words} --download")
    assert status == 0, said


@pytest.mark.usefixtures("photos")
def test_what_cannot_be_fetched_is_not_advised_to_be(say: Say) -> None:
    for option in ("", " --download"):
        status, said = train(say, f"train semi-aves --method supervised --out new{option}")
        assert status == 1
        assert "give their place with --data; --download cannot fetch them." in said
