"""From a source to the pools of a run: hold-outs, normalization, fingerprints."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from daso.data.images.decoded import DecodedImages
from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.data.split import make_split
from daso.data.training_data import TrainingData, prepare_data
from daso.errors import DataError, OptionError

CPU = torch.device("cpu")
COUNTS = (40, 20, 5, 1)


def pool(counts: tuple[int, ...], seed: int = 0, shade: int = 0) -> DecodedImages:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    pixels = np.random.default_rng(seed).integers(
        0, 256 - shade, (len(labels), 3, 8, 8), dtype=np.uint8
    )
    return DecodedImages(pixels + np.uint8(shade), labels)


def source(**parts: Any) -> Source:
    return Source("some", ("a", "b", "c", "d"), pool(COUNTS), **parts)


def held(found: Source, options: SplitOptions) -> list[int]:
    split = make_split(found, options, seed=0)
    assert not set(split.labeled) & set(split.holdout)
    return np.bincount(found.train.labels[split.holdout], minlength=4).tolist()


def test_without_test_images_a_fifth_of_each_class_that_can_spare_it_is_held_out() -> None:
    assert held(source(), SplitOptions()) == [8, 4, 1, 0]
    assert held(source(), SplitOptions(holdout=0)) == [0, 0, 0, 0]
    assert held(source(test=pool((2, 2, 2, 2))), SplitOptions()) == [0, 0, 0, 0]
    assert held(source(validation=pool((2, 2, 2, 2))), SplitOptions()) == [0, 0, 0, 0]


def test_a_holdout_never_takes_a_classs_last_image() -> None:
    assert held(source(), SplitOptions(holdout=24)) == [6, 6, 4, 0]


def test_a_holdout_that_reaches_no_image_of_a_class_is_refused() -> None:
    with pytest.raises(OptionError, match="hold-out of 3 is too small"):
        make_split(source(), SplitOptions(holdout=3), 0)
    with pytest.raises(OptionError, match="hold-out of 3 is too small"):
        make_split(source(), SplitOptions(1, holdout=3), 0)


def test_a_source_with_validation_images_holds_out_no_others() -> None:
    own = replace(source(), train=pool((40, 40, 40, 40)), validation=pool((3, 3, 3, 3)))
    options = SplitOptions(10, 20, 2, 2)
    data = prepare_data(own, options, 0, CPU)
    assert len(data.split.holdout) == 0
    assert data.holdout is not None
    assert len(data.holdout) == 12
    with pytest.raises(OptionError, match="its own validation images"):
        make_split(own, replace(options, holdout=8), 0)


def test_a_class_with_few_images_gives_what_its_counts_want() -> None:
    natural = replace(source(), train=pool((60, 40, 30, 12)))
    split = make_split(natural, SplitOptions(20, 30, 10, 10, holdout=0), 0)
    labels = natural.train.labels
    assert np.bincount(labels[split.labeled]).tolist() == [20, 9, 4, 2]
    assert np.bincount(labels[split.unlabeled]).tolist() == [30, 13, 6, 3]
    assert not set(split.labeled) & set(split.unlabeled)


@pytest.mark.parametrize("limit", ["COUNTED_IMAGES", "COUNTED_PIXELS"])
def test_the_normalization_sees_all_classes_of_labeled_and_unlabeled_images(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    dark, bright = pool((50, 0, 0, 0), shade=0), pool((0, 0, 0, 50), shade=250)
    unlabeled = DecodedImages(np.concatenate([dark.images, bright.images]), np.full(100, -1))
    counted = 40 * (dark.images[0, 0].size if limit == "COUNTED_PIXELS" else 1)
    monkeypatch.setattr(f"daso.data.training_data.{limit}", counted)
    data = prepare_data(source(unlabeled=unlabeled), SplitOptions(holdout=0), 0, CPU)
    everything = np.concatenate([pool(COUNTS).images, unlabeled.images]) / 255
    assert np.allclose(data.mean, everything.mean((0, 2, 3)), atol=0.03)
    assert np.allclose(data.std, everything.std((0, 2, 3)), atol=0.03)


def test_every_pool_has_a_fingerprint_that_changes_with_a_pixel() -> None:
    def prepared(shift: int) -> TrainingData:
        test = pool((2, 2, 2, 2))
        test.images[0, 0, 0, 0] += shift
        return prepare_data(source(test=test), SplitOptions(), 0, CPU)

    first, second = prepared(0).images_fingerprints, prepared(1).images_fingerprints
    assert first["labeled"] == second["labeled"]
    assert first["test"] != second["test"]
    assert first["unlabeled"] is None


def test_pixels_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, kept = pool(COUNTS), np.array([5, 3, 60])
    digests = images.digests
    monkeypatch.setattr("daso.data.images.decoded.digest", None)
    assert np.array_equal(images.select(kept).digests, digests[kept])
    assert images.select(kept).select(np.array([2])).digests.tolist() == [digests[60].tolist()]


def test_options_that_do_not_fit_the_source_are_refused() -> None:
    with pytest.raises(OptionError, match="needs labeled_head"):
        make_split(source(), SplitOptions(unlabeled_head=5), 0)
    with pytest.raises(OptionError, match="its own unlabeled images"):
        make_split(source(unlabeled=pool((2, 2, 2, 2))), SplitOptions(5, 5), 0)
    with pytest.raises(DataError, match="no labeled image of class 'd'"):
        make_split(replace(source(), train=pool((5, 5, 5, 0))), SplitOptions(), 0)


def test_unknown_labels_are_for_unlabeled_images_only() -> None:
    train = pool(COUNTS)
    train.labels[3] = -1
    with pytest.raises(DataError, match="label -1 at index 3"):
        Source("some", ("a", "b", "c", "d"), train)
