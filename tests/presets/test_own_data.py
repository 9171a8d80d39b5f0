"""What is chosen for your own data, and that every choice says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from daso.cli.training.command import parse_train
from daso.cli.training.defaults import configure
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
    expected = {"network": "wrn-10-2", "batch": 16, "steps": 2000}
    assert expected.items() <= chosen.options.items()
    assert chosen.dist_temperature == 0.3
    assert "network" not in choose_for(source(side=28), CPU).options


def test_the_length_goes_with_the_number_of_images() -> None:
    lengths = {100: 1000, 1000: 1600, 50_000: 2000, 0: 1000}
    found = {n: choose_for(source(unlabeled=n), CPU).options["steps"] for n in lengths}
    assert found == lengths
    # Small images are trained longer.
    assert choose_for(source(unlabeled=50_000, side=28), CPU).options["steps"] == 6000


def test_evaluations_take_a_small_share_of_the_time() -> None:
    few, medium, many = (choose_for(source(test=n), CPU).options for n in (50, 3_000, 9_000))
    assert few["evaluate_every"] == few["steps"] // 50
    assert many["evaluate_every"] == 200  # a tenth of the run at most
    # A step computes 16 labeled images and 32 unlabeled ones in two views, forward and backward.
    share = 3_000 / (medium["evaluate_every"] * 3 * (16 + 64))
    assert share == pytest.approx(0.15, rel=0.02)


def test_a_thousand_classes_get_a_shorter_queue() -> None:
    assert choose_for(source(labeled=2000, classes=1000), CPU).parts["daso"]["queue_length"] == 8
    assert "queue_length" not in choose_for(source(), CPU).parts["daso"]


def test_every_choice_is_printed_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    chosen = choose_for(source(labeled=2000, classes=1000), CPU)
    config, (text,) = configure(
        parse_train(["photos", "--method", "fixmatch+la+daso", "--batch", "8"]), chosen
    )
    assert (config.train.batch, config.train.network) == (8, "wrn-10-2")
    assert config.method_options["queue_length"] == 8
    assert "--batch" not in text
    for name in ("network", "steps", "evaluate-every", "queue-length"):
        assert f"--{name} " in text
    assert "--no-queue-batch-statistics " in text
    assert all(reason in text for name, reason in chosen.reasons.items() if name != "batch")
    # A training on labels alone has a length of its own.
    config, (text,) = configure(parse_train(["photos"]), chosen)
    assert config.train.steps == chosen.supervised["steps"] != chosen.options["steps"]
    assert f"--method {config.method} " in text
    assert all(reason in text for reason in chosen.supervised_reasons.values())


def test_the_best_network_is_taken_where_enough_is_held_out() -> None:
    for labeled, test, deploy in ((60, 0, None), (1200, 0, "best"), (1200, 500, None)):
        chosen = choose_for(source(labeled=labeled, test=test), CPU)
        assert chosen.options.get("deploy") == deploy


def test_vectors_keep_the_network_that_is_theirs() -> None:
    vectors = DecodedImages(np.zeros((60, 1, 5), np.float32), np.arange(60) % 3)
    chosen = choose_for(dataclasses.replace(source(unlabeled=0), train=vectors), CPU)
    assert not {"network", "precision"} & chosen.options.keys()
