"""Our networks with weights from files: ImageNet's names, our own files, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from daso.errors import OptionError, RunError
from daso.nets.backbone import WEIGHTS, load_backbone
from daso.nets.network import Network, build_encoder
from daso.nets.pretrained.own_weights import open_weights
from daso.train.encoder.pretrained import build_module


def imagenet_names(blocks: tuple[int, ...], convolutions: int) -> set[str]:
    """Return the names in the widely used ImageNet weights of a ResNet."""

    def norm(name: str) -> set[str]:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{name}.{part}" for part in parts}

    names = {"conv1.weight", "fc.weight", "fc.bias"} | norm("bn1")
    for layer, count in enumerate(blocks, 1):
        for block in range(count):
            for number in range(1, convolutions + 1):
                names |= {f"layer{layer}.{block}.conv{number}.weight"} | norm(
                    f"layer{layer}.{block}.bn{number}"
                )
        if layer > 1 or convolutions == 3:
            names |= {f"layer{layer}.0.downsample.0.weight"} | norm(f"layer{layer}.0.downsample.1")
    return names


@pytest.mark.parametrize(
    ("name", "blocks", "convolutions", "dim"),
    [
        ("resnet18", (2, 2, 2, 2), 2, 512),
        ("resnet34", (3, 4, 6, 3), 2, 512),
        ("resnet50", (3, 4, 6, 3), 3, 2048),
    ],
)
def test_imagenet_weights_have_the_names_of_our_resnets(
    name: str, blocks: tuple[int, ...], convolutions: int, dim: int, tmp_path: Path
) -> None:
    encoder = build_encoder(name, 3, 224)
    tensors = {n: torch.rand_like(t.float()) for n, t in encoder.state_dict().items()}  # type: ignore[attr-defined]
    tensors |= {"fc.weight": torch.zeros(1000, dim), "fc.bias": torch.zeros(1000)}
    assert tensors.keys() == imagenet_names(blocks, convolutions)
    if name != "resnet18":
        return
    safetensors.torch.save_file(tensors, tmp_path / "weights.safetensors")
    backbone = open_weights(name, tmp_path / "weights.safetensors")
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)
    assert torch.equal(
        backbone.module.state_dict()["layer4.1.conv2.weight"], tensors["layer4.1.conv2.weight"]
    )
    assert getattr(backbone.module, "large", False), "the stem is that of large images"


def test_a_network_of_ours_brings_its_mean_and_standard_deviation(tmp_path: Path) -> None:
    network = Network(build_encoder("small-4", 1, 28), {"class": 3}, [0.3], [0.2]).eval()
    for prefix in ("", "average."):
        tensors = {f"{prefix}{name}": t.contiguous() for name, t in network.state_dict().items()}
        safetensors.torch.save_file(tensors, tmp_path / "weights.safetensors")
        backbone = open_weights("small-4", tmp_path / "weights.safetensors")
        assert backbone.preprocessing.mean == pytest.approx((0.3,))
        assert backbone.recipe["channels"] == 1
        x = torch.randn(2, 1, 28, 28)
        with torch.no_grad():
            torch.testing.assert_close(backbone.module(x), network(x))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = build_encoder("wrn-10-1", 3, 32).state_dict()  # type: ignore[attr-defined]
    safetensors.torch.save_file(state, path)
    with pytest.raises(
        OptionError,
        match=r"'small-4'.*missing.*'convolutions\.0\.weight'",
    ):
        open_weights("small-4", path)
    with pytest.raises(
        OptionError,
        match=r"another shape.*'blocks\.0\.conv1\.weight': 16 x 16 x 3 x 3 in the file, 32 x 16 x 3 x 3 in",
    ):
        open_weights("wrn-10-2", path)
    safetensors.torch.save_file({"fc.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(OptionError, match="no weights of convolutions"):
        open_weights("resnet18", path)
    path.write_bytes(b"nothing")
    with pytest.raises(OptionError, match="cannot read weights"):
        open_weights("resnet18", path)
    with pytest.raises(OptionError, match=r"looks like a pickle.*daso.nets.convert"):
        open_weights("resnet18", tmp_path / "resnet18.pth")


def test_a_damaged_backbone_is_noticed(tmp_path: Path) -> None:
    safetensors.torch.save_file(
        build_encoder("small-4", 3, 28).state_dict(),  # type: ignore[attr-defined]
        tmp_path / "weights.safetensors",
    )
    backbone = open_weights("small-4", tmp_path / "weights.safetensors")
    backbone.save(tmp_path / "kept")
    content = bytearray((tmp_path / "kept" / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / "kept" / WEIGHTS).write_bytes(content)
    with pytest.raises(RunError, match="checksum"):
        load_backbone(tmp_path / "kept", build_module)
