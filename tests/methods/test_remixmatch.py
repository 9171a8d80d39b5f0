"""ReMixMatch: its alignment and its rotations; its formula is in test_formulas.py."""

import pytest
import torch
from small_learners import build

from daso.errors import OptionError
from daso.methods.remixmatch import turn


def test_remixmatch_aligns_unless_its_refiner_replaces_alignment() -> None:
    names = {
        "remixmatch": True,
        "remixmatch+daso": False,
        "remixmatch+sharpen": True,
        "remixmatch+align": False,
    }
    for name, aligns in names.items():
        assert build(name).align is aligns
        assert build(name, align=not aligns).align is not aligns


def test_rotations_need_square_images_and_can_be_off() -> None:
    method, off = build("remixmatch"), build("remixmatch", rotation_weight=0.0)
    assert (method.heads, off.heads) == ({"rotation": 4}, {})
    assert (method.needs_images, off.needs_images) == (True, False)
    with pytest.raises(OptionError, match="6 x 5"):
        turn(torch.randn(8, 1, 5, 6), torch.arange(8) % 4)


def test_images_turn_by_quarters() -> None:
    for channels in (1, 3):
        images = torch.randn(8, channels, 5, 5)
        quarters = torch.arange(8) % 4
        turned = turn(images, quarters)
        for image, k, actual in zip(images, quarters.tolist(), turned, strict=True):
            assert torch.equal(actual, torch.rot90(image, k, (1, 2)))
        assert torch.equal(turn(turned, -quarters % 4), images)
