"""Models of timm: without torchvision, and weights by other names. What needs timm itself is skipped without it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from daso.errors import MissingDependencyError, OptionError
from daso.nets.backbone import load_backbone
from daso.nets.pretrained.timm_import import import_timm
from daso.nets.pretrained.timm_models import open_timm
from daso.nets.pretrained.timm_names import to_timm_names
from daso.train.encoder.pretrained import build_module

LIKE_TIMM = """
import torchvision.transforms as transforms
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms.functional import InterpolationMode
from torchvision import datasets

class ToTensor(transforms.ToTensor):
    pass

NAMES = {InterpolationMode.NEAREST: "nearest", InterpolationMode.BICUBIC: "bicubic"}
__version__ = "1"
frozen = isinstance(3, FrozenBatchNorm2d)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that goes before all others; modules of the two names are put back afterwards."""
    kept = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in ("timm", "torchvision")}
    for name in kept:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
    sys.modules.update(kept)


def write(packages: Path, name: str, code: str) -> None:
    (packages / name).mkdir()
    (packages / name / "__init__.py").write_text(code)
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    "torchvision",
    [
        "raise RuntimeError('operator torchvision::nms does not exist')",
        "raise ImportError('libcudart.so: cannot open shared object file')",
        "raise ModuleNotFoundError(\"No module named 'torchvision'\", name='torchvision')",
    ],
)
def test_timm_is_imported_without_torchvision_of_which_nothing_is_left(
    torchvision: str, packages: Path
) -> None:
    write(packages, "timm", LIKE_TIMM)
    write(packages, "torchvision", torchvision)
    timm = import_timm()
    assert timm.NAMES == {"NEAREST": "nearest", "BICUBIC": "bicubic"}
    assert timm.frozen is False
    assert import_timm() is timm
    assert "torchvision" not in sys.modules
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin == str(packages / "torchvision" / "__init__.py")


def test_a_torchvision_that_works_is_used(packages: Path) -> None:
    write(packages, "timm", "from torchvision import mark\n")
    write(packages, "torchvision", "mark = 7\n")
    assert import_timm().mark == 7
    assert "torchvision" in sys.modules


def test_a_timm_that_is_broken_otherwise_is_named(packages: Path) -> None:
    write(packages, "timm", "import no_such_module_at_all\n")
    with pytest.raises(MissingDependencyError, match=r"daso\[timm\].*no_such_module_at_all"):
        import_timm()
    assert "timm" not in sys.modules


@pytest.fixture(scope="module")
def timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    return import_timm()


def renamed(tensors: dict[str, Tensor], repeats: list[int], squeeze: bool) -> dict[str, Tensor]:
    """Name an EfficientNet's tensors, in their order, as efficientnet-pytorch does: by the published architecture."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    gate = [
        f"{part}.{n}" for part in ("_se_reduce", "_se_expand") for n in ("weight", "bias")
    ] * squeeze
    names = ["_conv_stem.weight", *(f"_bn0.{n}" for n in norm)]
    for number in range(sum(repeats)):
        within = (
            ["_expand_conv.weight", *(f"_bn0.{n}" for n in norm)] if number >= repeats[0] else []
        )
        within += ["_depthwise_conv.weight", *(f"_bn1.{n}" for n in norm), *gate]
        within += ["_project_conv.weight", *(f"_bn2.{n}" for n in norm)]
        names += [f"_blocks.{number}.{name}" for name in within]
    names += ["_conv_head.weight", *(f"_bn1.{n}" for n in norm), "_fc.weight", "_fc.bias"]
    return dict(zip(names, tensors.values(), strict=True))


def test_weights_of_efficientnet_pytorch_are_understood(timm: Any) -> None:
    for name, repeats, squeeze in (
        ("tf_efficientnet_lite0", [1, 2, 2, 3, 3, 4, 1], False),
        ("efficientnet_b1", [2, 3, 3, 4, 4, 5, 2], True),
    ):
        model = timm.create_model(name)
        own = model.state_dict()
        found = to_timm_names(renamed(own, repeats, squeeze), model)
        assert found.keys() == own.keys(), name
        assert all(found[n] is own[n] for n in own), name


def test_the_names_of_a_models_first_repository_are_understood(timm: Any) -> None:
    model = timm.create_model("convnext_atto", num_classes=0)
    own = model.state_dict()
    first: dict[str, Tensor] = {}
    for n, tensor in own.items():
        stage = n.split(".")[1]
        old = n.replace("stem.", "downsample_layers.0.").replace(
            f"stages.{stage}.blocks.", f"stages.{stage}."
        )
        old = old.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}.")
        old = (
            old.replace("conv_dw", "dwconv")
            .replace("mlp.fc", "pwconv")
            .replace("head.norm", "norm")
        )
        first[old] = tensor.flatten(1) if "mlp.fc" in n and tensor.dim() == 4 else tensor
    assert first.keys() != own.keys()
    found = to_timm_names(first, model)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[n], own[n]) for n in own)


def test_a_file_of_weights_is_loaded_and_kept_with_the_models_preprocessing(
    timm: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(renamed(whole.state_dict(), [1, 2, 2, 3, 3, 4, 1], False), path)
    backbone = open_timm("tf_efficientnet_lite0", 32, path)
    found = backbone.preprocessing
    assert (found.mean, found.std, found.resolution) == ((0.5,) * 3, (0.5,) * 3, 32)
    assert found.interpolation == "bicubic"
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.module(images), expected)
        backbone.save(tmp_path / "kept")
        kept = load_backbone(tmp_path / "kept", build_module)
        torch.testing.assert_close(kept.module(images), expected)


def test_weights_of_another_model_are_refused_by_name_and_shape(timm: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), path)
    with pytest.raises(OptionError) as caught:
        open_timm("tf_efficientnet_lite1", None, path)
    message = str(caught.value)
    assert f"{path} does not fit 'tf_efficientnet_lite1'" in message
    assert "'blocks.1.2.conv_pw.weight'" in message  # lite1 has a third block where lite0 has two
    assert "'blocks.3.0.conv_pw.weight'" not in message
    wide = dict(timm.create_model("efficientnet_lite0").state_dict())
    wide["conv_stem.weight"] = torch.zeros(24, 3, 3, 3)
    safetensors.torch.save_file(wide, path)
    with pytest.raises(
        OptionError, match=r"'conv_stem.weight': 24 x 3 x 3 x 3 in the file, 32 x 3 x 3 x 3"
    ):
        open_timm("tf_efficientnet_lite0", None, path)


def test_a_model_without_rules_of_its_own_keeps_its_names() -> None:
    tensors = {"weight": torch.zeros(1)}
    assert to_timm_names(tensors, nn.Linear(1, 1, bias=False)) == tensors
