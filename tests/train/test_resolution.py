"""Small images are not enlarged to a pretrained encoder's own side where that would take long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from daso.cli.training.command import parse_train
from daso.cli.training.source import with_resolution
from daso.data.source import Source
from daso.errors import MissingDependencyError
from daso.nets.network import Network
from daso.nets.pretrained.huggingface import open_transformers, transformers_side
from daso.nets.pretrained.timm_import import import_timm
from daso.nets.pretrained.timm_models import timm_side
from daso.presets.sources import SOURCES
from daso.train.encoder.pretrained import choose_resolution
from daso.train.options import TrainOptions

SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 4,
    "depths": [1],
    "num_heads": [1],
    "window_size": 4,
}
VISION = {
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "image_size": 56,
    "patch_size": 7,
}


def saved(folder: Path, name: str, values: dict[str, Any]) -> Path:
    transformers: Any = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_config(getattr(transformers, name)(**values))
    model.save_pretrained(folder)
    return folder


def test_four_times_the_images_in_whole_patches_up_to_the_encoders_own(tmp_path: Path) -> None:
    folder = saved(tmp_path, "Dinov2Config", VISION)
    for side, chosen in ((8, 35), (7, 28), (12, 49), (13, None), (32, None)):
        found = choose_resolution(TrainOptions(network=str(folder)), side)
        assert (found and found.chosen) == chosen
        if chosen is not None:
            assert found is not None
            assert found.own == 56
            backbone = open_transformers("x", folder, chosen)
            given = backbone.preprocessing
            network = Network(
                backbone.module,
                {},
                given.mean or (),
                given.std or (),
                "float32",
                chosen,
                interpolation="bicubic",
            )
            assert network(torch.zeros(2, 3, side, side, dtype=torch.uint8)).shape == (2, 8)
        assert choose_resolution(TrainOptions(network=str(folder), resolution=21), side) is None


def test_the_side_is_the_processors_where_there_is_one(tmp_path: Path) -> None:
    folder = saved(tmp_path, "ViTConfig", VISION)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 42, "width": 42}})
    )
    assert transformers_side("x", folder) == (42, 7)


def test_encoders_of_one_side_keep_it(tmp_path: Path) -> None:
    assert transformers_side("x", saved(tmp_path, "SwinConfig", SWIN)) is None
    (tmp_path / "config.json").write_text('{"method": "fixmatch", "train": {}}')
    assert transformers_side("x", tmp_path) is None
    (tmp_path / "config.json").write_text("[")
    assert transformers_side("x", tmp_path) is None
    assert choose_resolution(TrainOptions(network="resnet50", weights="x.safetensors"), 8) is None


def test_models_of_timm() -> None:
    try:
        import_timm()
    except MissingDependencyError:
        pytest.skip("timm is not installed")
    for name, expected in (
        ("resnet10t", (176, 16)),
        ("tf_efficientnet_lite0", (224, 16)),
        ("vit_small_patch14_dinov2", (518, 14)),
        ("swin_tiny_patch4_window7_224", None),
        ("no_such_model", None),
    ):
        assert timm_side(name) == expected


def test_the_command_says_it_and_leaves_other_networks_alone(
    digits: Source, tmp_path: Path
) -> None:
    folder = saved(tmp_path, "ViTConfig", VISION)
    train = parse_train(["digits", "--network", str(folder), "--device", "cpu"]).train
    defaults = with_resolution(train, digits, SOURCES["stl10"])
    assert defaults.options["resolution"] == 35
    assert "4 times the images' side instead of the encoder's 56" in defaults.reasons["resolution"]
    train = parse_train(["digits", "--network", "wrn-10-1", "--device", "cpu"]).train
    assert with_resolution(train, digits, SOURCES["stl10"]) is SOURCES["stl10"]
    train = parse_train(
        ["digits", "--network", str(saved(tmp_path, "SwinConfig", SWIN)), "--device", "cpu"]
    ).train
    assert "resolution" not in with_resolution(train, digits, SOURCES["stl10"]).options
