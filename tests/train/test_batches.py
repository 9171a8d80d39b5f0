"""Orders and batches are pure functions of the seed and the step."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import made_views
import pytest
import torch

from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.data.training_data import prepare_data
from daso.errors import OptionError
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch
from daso.methods.supervised import Supervised
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import train_run
from daso.train.step.batches import Batches, sampling_weights
from daso.train.step.sampling import Order, WeightedOrder, derive_seed
from daso.train.view_options import ViewOptions

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")


def test_every_image_comes_once_per_pass() -> None:
    for count, batch in ((10, 4), (10, 10), (7, 3), (1, 1), (5, 1), (3, 8), (1, 6), (4, 9)):
        order, passes = Order(count, batch, seed=3, name="labeled"), 4
        steps = -(-passes * count // batch)
        batches = [order(step) for step in range(steps)]
        assert all(len(indices) == batch for indices in batches)
        visited = torch.cat(batches)[: passes * count].view(passes, count)
        for one_pass in visited:
            assert one_pass.sort().values.tolist() == list(range(count))


def test_passes_are_shuffled_anew() -> None:
    order = Order(50, 50, seed=0, name="labeled")
    first, second = order(0), order(1)
    assert first.tolist() != list(range(50))
    assert first.tolist() != second.tolist()


def test_an_order_is_a_function_of_the_step_alone() -> None:
    for count, batch in ((10, 4), (3, 8), (100, 7)):
        in_turn = Order(count, batch, seed=1, name="labeled")
        expected = [in_turn(step) for step in range(20)]
        jumping = Order(count, batch, seed=1, name="labeled")
        for step in (19, 0, 7, 7, 6, 12, 1):
            assert torch.equal(jumping(step), expected[step])
            assert torch.equal(Order(count, batch, seed=1, name="labeled")(step), expected[step])


def test_orders_differ_by_seed_and_by_name() -> None:
    orders = [
        Order(40, 40, seed, name)(0).tolist()
        for seed in (0, 1)
        for name in ("labeled", "unlabeled")
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_seeds_are_independent_and_in_range() -> None:
    seeds = {
        derive_seed(seed, purpose, index)
        for seed in range(5)
        for purpose in "ab"
        for index in range(50)
    }
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    # "1" and 2 must not be taken for "" and 12.
    assert derive_seed(1, "x", 12) != derive_seed(11, "x", 2)


def effective_number(count: int) -> float:
    return sum(0.999**seen for seen in range(count))  # the n-th image is worth beta^(n - 1)


def test_classes_are_drawn_as_often_as_the_sampling_says() -> None:
    for sampling, drawn in (
        ("uniform", lambda count: count),
        ("class-balanced", lambda count: 1),
        ("effective-number", lambda count: count / effective_number(count)),
    ):
        counts, draws = [2000, 10, 400], 40 * 1000
        labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
        order = WeightedOrder(sampling_weights(labels, sampling), 1000, 0, "labeled")
        images = torch.cat([order(step) for step in range(40)])
        found = labels[images].bincount(minlength=3)
        for k, count in enumerate(counts):
            share = drawn(count) / sum(map(drawn, counts))
            assert abs(found[k].item() - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5
            # Within a class all images alike.
            times = images[labels[images] == k].bincount(minlength=len(labels))[labels == k]
            expected = draws * share / count
            assert (times - expected).abs().max() < 6 * expected**0.5 + 6


def _same(first: Batch, second: Batch) -> bool:
    pairs = zip(
        (*first.labeled, *first.unlabeled), (*second.labeled, *second.unlabeled), strict=True
    )
    return (
        all(torch.equal(one, other) for one, other in pairs)
        and torch.equal(first.labels, second.labels)
        and torch.equal(first.indices, second.indices)
        and torch.equal(first.step, second.step)
    )


def test_a_batch_is_a_function_of_seed_and_step(tiny_config: MakeConfig, digits: Source) -> None:
    batches = prepare(tiny_config(), digits).batches
    expected = [batches(step) for step in range(6)]
    torch.rand(17)
    again = prepare(tiny_config(), digits).batches
    for step in (5, 0, 3):
        assert _same(again(step), expected[step])
    other = prepare(tiny_config(seed=1), digits).batches
    assert not _same(other(0), expected[0])
    assert not torch.equal(expected[0].indices, expected[1].indices)


def test_drawing_a_batch_leaves_the_global_generator_alone(
    tiny_config: MakeConfig, digits: Source
) -> None:
    batches = prepare(tiny_config(), digits).batches
    state = torch.get_rng_state()
    batches(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_has_the_images_labels_and_views_that_it_says(
    tiny_config: MakeConfig, digits: Source
) -> None:
    prepared = prepare(tiny_config(batch=6, unlabeled_ratio=3), digits)
    data = prepared.data
    batch = prepared.batches(4)
    (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
    assert labeled.shape == (6, 1, 8, 8)
    assert weak.shape == strong.shape == (18, 1, 8, 8)
    assert labeled.dtype == weak.dtype == strong.dtype == torch.uint8
    assert int(batch.step) == 4
    assert not torch.equal(weak, strong)
    at = Order(len(data.labeled), 6, 0, "labeled")(4)
    assert torch.equal(batch.labels, data.labeled.labels[at])


def test_weak_views_without_crop_and_flip_are_the_images_of_the_indices(
    tiny_config: MakeConfig, digits: Source
) -> None:
    config = dataclasses.replace(
        tiny_config(), augmentation=ViewOptions(flip=False, crop_padding=0)
    )
    prepared = prepare(config, digits)
    assert prepared.data.unlabeled is not None
    batch = prepared.batches(4)
    weak, strong = batch.unlabeled
    assert torch.equal(weak, prepared.data.unlabeled.images[batch.indices])
    assert not torch.equal(strong, weak)


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_the_crop_of_both_views(crop: Literal["pad", "resized"], digits: Source) -> None:
    data = prepare_data(digits, SplitOptions(20, 40, 10, 10, "consistent"), 0, CPU)
    assert data.unlabeled is not None
    options = ViewOptions(flip=True, crop=crop, crop_padding=2, cutout=3, strong_operations=1)
    batch = Batches(data, FixMatch(), TrainOptions(batch=6, seed=7), options)(4)
    generator = torch.Generator().manual_seed(derive_seed(7, "views", 4))
    labeled = data.labeled.images[Order(len(data.labeled), 6, 7, "labeled")(4)]
    unlabeled = data.unlabeled.images[batch.indices]
    if crop == "pad":
        expected = [
            made_views.weak(images, generator, padding=2) for images in (labeled, unlabeled)
        ]
        expected.append(made_views.strong(unlabeled, generator, padding=2, operations=1, cutout=3))
    else:
        expected = [made_views.resized_crop(images, generator) for images in (labeled, unlabeled)]
        cropped = made_views.resized_crop(unlabeled, generator)
        expected.append(
            made_views.strong(cropped, generator, flip=False, padding=0, operations=1, cutout=3)
        )
    for found, wanted in zip((*batch.labeled, *batch.unlabeled), expected, strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(OptionError, match="crop = 'central'"):
        ViewOptions(crop="central")  # type: ignore[arg-type]


def test_a_batch_larger_than_the_pools_works(tiny_config: MakeConfig, digits: Source) -> None:
    prepared = prepare(tiny_config(batch=200, unlabeled_ratio=3), digits)
    assert len(prepared.data.labeled) < 200
    batch = prepared.batches(1)
    assert len(batch.labels) == 200
    assert len(batch.indices) == 600
    assert set(batch.labels.tolist()) == set(range(10))


def test_labeled_images_come_unshuffled_with_their_labels_as_identity_views(digits: Source) -> None:
    class Plain(Supervised):
        labeled_views = ("identity",)

    data = prepare_data(digits, SplitOptions(holdout=0), 0, CPU)
    batches = Batches(data, Plain(), TrainOptions(batch=50), ViewOptions())
    batch = batches(2)
    for image, label in zip(batch.labeled[0], batch.labels, strict=True):
        matches = (data.labeled.images == image).flatten(1).all(1)
        assert int(label) in data.labeled.labels[matches].tolist()


def test_reading_threads_end_with_the_run_or_its_stage(
    tiny_config: MakeConfig, make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    def readers() -> int:
        return sum(thread.name.startswith("daso-images") for thread in threading.enumerate())

    config = dataclasses.replace(
        tiny_config("fixmatch+crest", method_options={"generations": 2}, steps=4, batch=4),
        source=str(make_image_folder()),
        cache=str(tmp_path / "cache"),
        memory=0,
        split=SplitOptions(),
    )
    before = readers()
    prepared = prepare(config)
    prepared.batches(0)
    assert readers() == before + 2
    prepared.batches.close()
    assert readers() == before
    expected = prepared.batches(2)
    assert _same(prepared.batches(2), expected), "it reads on after it was closed"
    counts = [readers() - before for _ in train_run(prepared, tmp_path / "run")]
    assert max(counts) == 2
    assert readers() == before


def test_a_method_that_needs_unlabeled_images_says_so(digits: Source) -> None:
    data = prepare_data(digits, SplitOptions(), 0, CPU)
    assert data.unlabeled is None
    with pytest.raises(OptionError, match="learns from unlabeled images"):
        Batches(data, FixMatch(), TrainOptions(), ViewOptions())
    batch = Batches(data, Supervised(), TrainOptions(batch=4), ViewOptions())(0)
    assert batch.unlabeled == ()
    assert len(batch.indices) == 0
