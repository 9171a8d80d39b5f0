"""Preprocessing that the files of transformers models describe."""

from __future__ import annotations

import pytest

from daso.errors import OptionError
from daso.nets.pretrained.huggingface import (
    IMAGENET_MEAN,
    from_processor,
)


def test_the_side_of_images() -> None:
    for values, side, interpolation in (
        ({"size": 224, "resample": 2}, 224, "bilinear"),
        ({"size": {"height": 384, "width": 384}, "resample": 3}, 384, "bicubic"),
        (
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
            224,
            "bilinear",
        ),
        (
            {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False},
            256,
            "bilinear",
        ),
        ({"size": {"shortest_edge": 224}, "resample": 1}, 224, "bicubic"),
        ({}, 518, "bilinear"),
    ):
        found = from_processor(values, 518)
        assert (found.resolution, found.interpolation) == (side, interpolation)
        assert found.mean == IMAGENET_MEAN, values


def test_means_and_factors_come_to_the_same_pixels() -> None:
    for values in (
        {"image_mean": [0.5] * 3, "image_std": [0.25] * 3},
        {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
        {"image_mean": [100.0] * 3, "image_std": [50.0] * 3, "do_rescale": False},
        {
            "image_mean": [0.1] * 3,
            "image_std": [0.5] * 3,
            "rescale_factor": 1 / 127.5,
            "rescale_offset": True,
        },
    ):
        pixel = 200.0
        expected = pixel * (
            values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
        )
        expected -= bool(values.get("rescale_offset"))
        if values.get("do_normalize", True):
            expected = (expected - values["image_mean"][0]) / values["image_std"][0]
        found = from_processor(values, 224)
        assert found.mean is not None, values
        assert found.std is not None, values
        assert (pixel / 255 - found.mean[0]) / found.std[0] == pytest.approx(expected), values


def test_what_is_not_offered_is_refused() -> None:
    with pytest.raises(OptionError, match="blue, green, red"):
        from_processor({"do_flip_channel_order": True}, 224)
    with pytest.raises(OptionError, match="method of resizing"):
        from_processor({"resample": 0}, 224)
