"""Encoders of transformers and timm: features, preprocessing, what is refused. Models are tiny and random."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from daso.errors import MissingDependencyError, OptionError
from daso.nets.backbone import Backbone, load_backbone
from daso.nets.layer_depth import depths_from_top
from daso.nets.network import Network
from daso.nets.pretrained.huggingface import (
    open_transformers,
    transformers_side,
)
from daso.nets.pretrained.timm_models import open_timm
from daso.train.encoder.pretrained import build_module, choose_resolution, open_backbone
from daso.train.options import TrainOptions

transformers: Any = pytest.importorskip("transformers")
BLOCK = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
}
VISION = {**BLOCK, "image_size": 32, "patch_size": 8}
TEXT = {**BLOCK, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
STAGES = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 1, 2, 1]}


def first_token(output: Any) -> Tensor:
    return output.last_hidden_state[:, 0]


def pooled(output: Any) -> Tensor:
    return output.pooler_output.flatten(1)


FAMILIES: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "ViT": ("ViTConfig", VISION, first_token, 2),
    "DeiT": ("DeiTConfig", VISION, first_token, 2),
    "DINOv2": ("Dinov2Config", VISION, first_token, 2),
    "CLIP": ("CLIPConfig", {"vision_config": VISION, "text_config": TEXT}, pooled, 2),
    "SigLIP": ("SiglipVisionConfig", VISION, pooled, 2),
    "ConvNeXt": ("ConvNextConfig", {**STAGES, "num_channels": 3}, pooled, 5),
    "ResNet": ("ResNetConfig", {**STAGES, "embedding_size": 4, "layer_type": "basic"}, pooled, 5),
    "Swin": (
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 4,
            "depths": [1, 2],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        pooled,
        3,
    ),
}
PROCESSOR = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}


def save(folder: Path, family: str) -> nn.Module:
    """Save a random model of a family as the hub has it, and return it."""
    name, values, _, _ = FAMILIES[family]
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModel.from_config(
        getattr(transformers, name)(**values)
    ).eval()
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "vit"
    save(folder, "ViT")
    return folder


def as_network(backbone: Backbone) -> Network:
    given = backbone.preprocessing
    assert given.mean is not None
    assert given.std is not None
    encoder: Any = backbone.module
    network = Network(
        encoder,
        {},
        given.mean,
        given.std,
        resolution=given.resolution,
        interpolation=given.interpolation,
    )
    return network.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_model_on_images_that_pillow_resized(
    family: str, tmp_path: Path
) -> None:
    model: Any = save(tmp_path / "model", family)
    backbone = open_transformers(family, tmp_path / "model", None)
    network = as_network(backbone)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 40), dtype=np.uint8)

    def resize(channel: Any) -> Any:
        picture = Image.fromarray(
            channel.astype(np.float32)
        )  # numbers are not rounded in such a picture
        return np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC)).clip(0, 255)

    resized = np.stack([[resize(channel) for channel in image] for image in images]).transpose(
        0, 2, 3, 1
    )
    pixels = (resized / 255 - PROCESSOR["image_mean"]) / PROCESSOR["image_std"]
    expected_of = FAMILIES[family][2]
    with torch.no_grad():
        found = network(torch.from_numpy(images))
        vision = getattr(model, "vision_model", model)
        expected = expected_of(
            vision(pixel_values=torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        )
    assert network.dim == expected.shape[1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    blocks = FAMILIES[family][3]
    depths = depths_from_top(backbone.module)
    assert depths.keys() == dict(backbone.module.named_parameters()).keys()
    assert {*range(1, blocks + 2)} <= {*depths.values()} <= {*range(blocks + 2)}
    assert next(iter(depths.values())) == blocks + 1


@pytest.mark.parametrize("family", ["ViT", "CLIP", "ConvNeXt"])
def test_a_backbone_that_was_kept_is_the_same_and_needs_its_folder_no_more(
    family: str, tmp_path: Path
) -> None:
    save(tmp_path / "model", family)
    backbone = open_transformers(family, tmp_path / "model", None)
    backbone.save(tmp_path / "kept")
    shutil.rmtree(tmp_path / "model")
    again = load_backbone(tmp_path / "kept", build_module)
    assert again.describe() == backbone.describe()
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(as_network(again)(images), as_network(backbone)(images))


def test_loading_is_repeatable_and_gray_images_are_seen_as_color(vit: Path) -> None:
    first, second = (open_transformers("vit", vit, None) for _ in range(2))
    assert first.describe() == second.describe()
    grey = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    network = as_network(first)
    with torch.no_grad():
        torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))


def test_position_embeddings_are_interpolated_for_another_size(vit: Path) -> None:
    backbone = open_transformers("vit", vit, 48)
    assert backbone.preprocessing.resolution == 48
    with torch.no_grad():
        assert as_network(backbone)(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape == (1, 16)


def test_parameters_that_features_do_not_depend_on_do_not_learn(tmp_path: Path) -> None:
    save(tmp_path / "model", "DINOv2")
    module = open_transformers("dinov2", tmp_path / "model", None).module
    assert [n for n, p in module.named_parameters() if not p.requires_grad] == [
        "model.embeddings.mask_token"
    ]


def test_weights_that_lack_something_are_refused(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "layernorm_before" in name)
    tensors.pop(gone)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(OptionError, match="lack 1 tensors that its features need"):
        open_transformers("vit", folder, None)


def test_pickles_are_refused(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(OptionError, match="cannot be loaded"):
        open_transformers("vit", folder, None)


def test_code_in_a_model_is_not_run(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModel": "mine.MyModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(OptionError, match="cannot be loaded"):
        open_transformers("mine", folder, None)
    assert not (tmp_path / "ran").exists()


def test_models_of_text_are_refused(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**TEXT)).save_pretrained(tmp_path / "model")
    with pytest.raises(OptionError, match="do not take images"):
        open_transformers("bert", tmp_path / "model", None)


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: list[float] = []

    def unreachable(self: Any, name: str, timeout: float) -> None:
        calls.append(timeout)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(
        OptionError, match=r"does not answer: Name or service not known\. .*--network FOLDER"
    ):
        open_transformers("nobody/has-this", None, None)
    assert len(calls) == 1, "asked once"
    assert calls[0] <= 10, "and not for long"


def test_what_is_advised_without_a_network_takes_the_downloaded_copy(
    monkeypatch: pytest.MonkeyPatch, vit: Path, tmp_path: Path
) -> None:
    import huggingface_hub

    def unreachable(self: Any, name: str, timeout: float) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for ask in (transformers_side, lambda name, folder: open_transformers(name, folder, None)):
        with pytest.raises(OptionError, match=r"--local-dir FOLDER\"; then use --network FOLDER$"):
            ask("nobody/has-this", None)
    options = TrainOptions(network=str(vit), freeze=True)
    choose_resolution(options, 8)
    assert open_backbone(options, (3, 8, 8)) is not None


def test_a_model_of_the_hub_without_safetensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    files = [
        types.SimpleNamespace(rfilename="pytorch_model.bin"),
        types.SimpleNamespace(rfilename="config.json"),
    ]
    found = types.SimpleNamespace(siblings=files)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: found)
    with pytest.raises(OptionError, match="pickles only"):
        open_transformers("nobody/has-this", None, None)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, vit: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"daso\[hf\]"):
        open_transformers("vit", vit, None)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"daso\[timm\]"):
        open_timm("resnet18", None, None)


class StandIn(nn.Module):
    """A model with the interface of timm's, for where timm itself is not installed."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, outputs) if outputs else nn.Identity()
        self.pretrained_cfg = {
            "hf_hub_id": "timm/stand_in",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "input_size": (3, 16, 16),
            "interpolation": "bicubic",
            "classifier": "head",
        }

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def test_timm_models_lose_their_classifier_and_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        assert not pretrained, "timm's own loading can unpickle"
        if name != "stand_in":
            raise RuntimeError(f"Unknown model ({name})")
        return StandIn(num_classes)

    library = types.SimpleNamespace(create_model=create_model, __version__="1")
    monkeypatch.setitem(sys.modules, "timm", library)
    whole = StandIn(10)
    safetensors.torch.save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    backbone = open_timm("stand_in", None, tmp_path / "weights.safetensors")
    backbone.save(tmp_path / "kept")
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = whole.conv((images / 255 - 0.5) / 0.25).mean((2, 3))
    for found in (backbone, load_backbone(tmp_path / "kept", build_module)):
        torch.testing.assert_close(as_network(found)(images), expected)
    with pytest.raises(OptionError, match="cannot build 'stand_out'"):
        open_timm("stand_out", None, None)
    safetensors.torch.save_file(
        {"conv.weight": whole.conv.weight.detach()}, tmp_path / "half.safetensors"
    )
    with pytest.raises(
        OptionError, match=r"1 of 2 tensors of the network are missing.*'conv.bias'"
    ):
        open_timm("stand_in", None, tmp_path / "half.safetensors")
