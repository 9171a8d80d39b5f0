"""What is chosen for people's own data, and that every choice says why."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from daso.cli.training.command import parse_train
from daso.cli.training.defaults import to_config
from daso.data.images.decoded import DecodedImages
from daso.data.source import UNLABELED, Source
from daso.presets.own_data import choose_for

CPU = torch.device("cpu")


def source(
    labeled: int = 60, unlabeled: int = 2000, *, side: int = 32, classes: int = 3, test: int = 0
) -> Source:
    def pool(count: int, label: int | None = None) -> DecodedImages:
        labels = np.arange(count) % classes if label is None else np.full(count, label)
        return DecodedImages(np.zeros((count, 3, side, side), np.uint8), labels.astype(np.int64))

    return Source(
        name="photos",
        class_names=tuple(map(str, range(classes))),
        train=pool(labeled),
        unlabeled=pool(unlabeled, UNLABELED) if unlabeled else None,
        test=pool(test) if test else None,
    )


def test_on_a_cpu_the_network_and_the_batch_are_small() -> None:
    chosen = choose_for(source(), CPU)
    assert (chosen.network, chosen.batch, chosen.steps, chosen.dist_temperature) == (
        "wrn-10-2",
        16,
        2000,
        0.3,
    )
    assert choose_for(source(side=28), CPU).network is None


@pytest.mark.parametrize(
    ("unlabeled", "steps"), [(100, 1000), (1000, 1600), (50_000, 2000), (0, 1000)]
)
def test_the_length_goes_with_the_number_of_images(unlabeled: int, steps: int) -> None:
    assert choose_for(source(unlabeled=unlabeled), CPU).steps == steps


def test_small_images_are_trained_longer_on_a_cpu() -> None:
    assert choose_for(source(unlabeled=50_000, side=28), CPU).steps == 6000


def test_evaluations_take_a_small_share_of_the_time() -> None:
    few, many = choose_for(source(test=50), CPU), choose_for(source(test=9_000), CPU)
    assert few.evaluate_every == few.steps // 50
    assert many.evaluate_every == 200  # a tenth of the run at most
    medium = choose_for(source(test=3_000), CPU)
    assert medium.evaluate_every is not None
    # A step computes 16 labelled images and 32 unlabelled ones in two views, forward and backward.
    assert 3_000 / (medium.evaluate_every * 3 * (16 + 64)) == pytest.approx(0.15, rel=0.02)


def test_a_method_without_unlabelled_images_is_measured_as_often() -> None:
    chosen = choose_for(source(test=9_000), CPU)
    assert chosen.without_unlabeled().evaluate_every == chosen.evaluate_every == 200


def test_a_thousand_classes_get_a_shorter_queue() -> None:
    chosen = choose_for(source(labeled=2000, classes=1000), CPU)
    assert chosen.queue_length == 8
    assert choose_for(source(), CPU).queue_length is None


def test_every_choice_is_printed_with_its_reason() -> None:
    argv = ["photos", "--batch", "8"]
    command, options = parse_train(argv)
    chosen = choose_for(source(labeled=2000, classes=1000), CPU)
    notices: list[str] = []
    config = to_config(command, options, argv, chosen, notices.append)
    assert (config.train.batch, config.train.network) == (8, "wrn-10-2")
    assert config.method_options["queue_length"] == 8
    (text,) = notices
    assert "--batch" not in text
    for name in ("network", "steps", "evaluate-every", "queue-length", "dist-temperature"):
        assert f"--{name} " in text
    assert all(reason in text for name, reason in chosen.reasons.items() if name not in ("batch",))


@pytest.mark.parametrize(
    ("labeled", "test", "deploy"), [(60, 0, None), (1200, 0, "best"), (1200, 500, None)]
)
def test_the_best_network_is_taken_where_enough_is_held_out(
    labeled: int, test: int, deploy: str | None
) -> None:
    assert choose_for(source(labeled=labeled, test=test), CPU).deploy == deploy


def test_vectors_keep_the_network_that_is_theirs() -> None:
    vectors = DecodedImages(np.zeros((60, 1, 5), np.float32), np.arange(60) % 3)
    chosen = choose_for(dataclasses.replace(source(unlabeled=0), train=vectors), CPU)
    assert (chosen.network, chosen.precision) == (None, None)
