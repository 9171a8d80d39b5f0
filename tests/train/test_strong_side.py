"""Views that are resized right after the crop, as ReMixMatch's authors have them on STL-10."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from daso.cli import main
from daso.cli.training.command import parse_train
from daso.cli.training.defaults import configure
from daso.methods.method import View
from daso.presets.benchmarks import PRESETS
from daso.presets.sources import SOURCES
from daso.reproduce.resolve import resolve
from daso.reproduce.scales import SCALES
from daso.train.step.augmentation import Augmentation
from daso.train.view_options import Crop, ViewOptions

SIDE, SMALL = 96, 32
VIEWS: tuple[View, ...] = ("identity", "weak", "strong")


def pictures(count: int = 20) -> Tensor:
    """Return smooth images, uint8 (N, 3, 96, 96), of which no pixel is the gray of the cutout once they are resized."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(140, 250, (count, 3, 6, 6), generator=generator).float()
    return (
        torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(135, 255).byte()
    )


def view(name: View, images: Tensor, options: ViewOptions) -> Tensor:
    augmentation = Augmentation(options, SIDE, SIDE, flip=True)
    drawn = augmentation.draw(name, len(images), torch.Generator().manual_seed(1))
    return augmentation.make(name, images, [drawn])


def resized_by_pillow(images: Tensor) -> Tensor:
    resized = [
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (SMALL, SMALL), Image.Resampling.BILINEAR
        )
        for image in images
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", VIEWS)
def test_without_operations_a_view_is_the_resized_crop(name: View) -> None:
    plain = ViewOptions(crop_padding=4, strong_operations=0, cutout=0)
    small = ViewOptions(crop_padding=4, strong_operations=0, cutout=0, strong_side=SMALL)
    images = pictures()
    actual = view(name, images, small)
    # The draws of the crop come first, whatever follows.
    expected = resized_by_pillow(view("identity" if name == "identity" else "weak", images, plain))
    assert actual.dtype == torch.uint8
    assert (actual.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_the_cutout_and_the_operations_work_at_the_small_side(crop: Crop) -> None:
    images = pictures()
    options = ViewOptions(
        crop=crop, crop_padding=4, cutout=16, strong_operations=0, strong_side=SMALL
    )
    cut = (view("strong", images, options) == 127).all(1)
    rows = cut.any(2).sum(1)
    assert cut.shape == (20, SMALL, SMALL)
    assert rows.min() >= 8  # at 96 pixels it would be 17 of 96, 5 or 6 of 32
    assert rows.max() == 17
    operated = view(
        "strong", images, ViewOptions(crop=crop, crop_padding=4, cutout=0, strong_side=SMALL)
    )
    assert (operated.int() - view("weak", images, options).int()).abs().amax((1, 2, 3)).gt(20).any()


def test_the_default_cutout_covers_the_same_share() -> None:
    assert Augmentation(ViewOptions(strong_side=SMALL), SIDE, SIDE, flip=True).cutout == 16
    assert Augmentation(ViewOptions(), SIDE, SIDE, flip=True).cutout == 50


def test_of_all_settings_and_methods_it_is_remixmatchs_on_stl10() -> None:
    for method in ("remixmatch", "remixmatch+daso", "fixmatch+daso", "mixmatch", "supervised"):
        for preset in ("stl10-n150-g10", "cifar10-n500-g100"):
            wanted = (
                SMALL if method.startswith("remixmatch") and preset.startswith("stl10") else None
            )
            config = SCALES["full"].configure(PRESETS[preset], method, {})
            assert config.augmentation.strong_side == wanted, (method, preset)
            shown = {item.name: item for item in resolve(PRESETS[preset], method)[1]}
            assert shown["strong_side"].value == wanted if wanted else "strong_side" not in shown
            source = preset.partition("-")[0]
            argv = [source, "--method", method]
            asked, _ = configure(parse_train(argv), SOURCES[source])
            assert asked.augmentation.strong_side == wanted
    assert (
        SCALES["full"].configure(PRESETS["stl10-n150-g10"], "remixmatch", {}).augmentation.cutout
        == 16
    )


def test_a_training_with_it(
    make_image_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "--method remixmatch+daso --steps 2 --batch 4 --network small-4 --device cpu --strong-side 8"
    command = ["train", str(make_image_folder()), *line.split(), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "strong_side = 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--resolution", "8"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["augmentation"]["strong_side"], config["train"]["resolution"]) == (8, 8)
