"""Runs on feature vectors: every kind of method, versions, models and resumption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from run_files import assert_same_run, train

from daso.data.images.decoded import DecodedImages
from daso.data.source import Source
from daso.errors import DataError, OptionError
from daso.train.config import RunConfig
from daso.train.model import load_model
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from tests.conftest import SPLIT, MakeConfig

METHODS = (
    "supervised",
    "pseudolabel",
    "meanteacher+daso",
    "mixmatch",
    "remixmatch+daso",
    "fixmatch+abc+daso",
)


def prepared(config: RunConfig, source: Source) -> Prepared:
    if config.method.startswith("remixmatch"):
        config = dataclasses.replace(config, method_options={"rotation_weight": 0})
    return prepare(config, source)


@pytest.fixture
def make(tiny_config: MakeConfig) -> MakeConfig:
    return lambda method, **train: tiny_config(method, **{"split": SPLIT, "network": None, **train})


@pytest.mark.parametrize("method", METHODS)
def test_methods_learn_from_vectors(
    method: str, make: MakeConfig, vectors: Source, tmp_path: Path
) -> None:
    rows = list(
        train_run(prepared(make(method, steps=150, evaluate_every=150), vectors), tmp_path / "run")
    )
    assert rows[-1]["test"]["balanced_accuracy"] > 0.5
    assert [row["event"] for row in rows][-1] == "evaluate"


def test_a_model_of_vectors_gives_the_answers_that_were_measured(
    make: MakeConfig, vectors: Source, tmp_path: Path
) -> None:
    rows = list(train_run(prepared(make("fixmatch+daso"), vectors), tmp_path / "run"))
    model = load_model(tmp_path / "run", torch.device("cpu"), pytest.fail)
    assert model.image_shape == (64,)
    assert vectors.test is not None
    with torch.no_grad():
        logits = model.network.classify(model.network(torch.from_numpy(vectors.test.images[:, 0])))
    recall = [
        (logits.argmax(1).numpy()[vectors.test.labels == k] == k).mean()
        for k in range(len(model.class_names))
    ]
    assert rows[-1]["test"]["recall"] == pytest.approx(recall)


def test_a_stopped_run_on_vectors_goes_on_bit_for_bit(
    make: MakeConfig, vectors: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(prepared(make("fixmatch+daso"), vectors), tmp_path / "whole")
    stopped = train(prepared(make("fixmatch+daso"), vectors), tmp_path / "stopped", 10)
    monkeypatch.setattr("daso.train.run_data.open_with", lambda *_, **__: vectors)
    list(resume_run(stopped)[1])
    assert_same_run(whole, stopped)


def test_views_take_the_versions_that_are_theirs(make: MakeConfig, vectors: Source) -> None:
    run = prepared(make("fixmatch"), vectors)
    pools = {}
    for name in ("labeled", "unlabeled"):
        pool = getattr(run.data, name)
        marks = torch.tensor([0.0, 1.0, 2.0])[None, :, None]
        pools[name] = dataclasses.replace(pool, images=marks.expand(len(pool), 3, 64).contiguous())
    data = dataclasses.replace(
        run.data, **pools, weak_versions=1, mean=(0.0,) * 64, std=(1.0,) * 64
    )
    quiet = dataclasses.replace(
        run.config.vectors, weak_noise=0, strong_noise=0, strong_mask=0, strong_mix=0
    )
    batches = type(run.batches)(
        data, run.training.method, run.config.train, run.config.augmentation, quiet
    )
    seen = [batches(step) for step in range(5)]
    assert {float(v) for batch in seen for v in batch.unlabeled[0].flatten()} == {0.0, 1.0}
    assert {float(v) for batch in seen for v in batch.unlabeled[1].flatten()} == {2.0}


def test_what_does_not_go_with_vectors_is_refused(make: MakeConfig, vectors: Source) -> None:
    with pytest.raises(OptionError, match="--rotation-weight 0"):
        prepare(make("remixmatch"), vectors)
    with pytest.raises(OptionError, match="unknown network 'wrn-28-2' for vectors"):
        prepare(
            dataclasses.replace(make("fixmatch"), train=make("fixmatch", network="wrn-28-2").train),
            vectors,
        )
    with pytest.raises(OptionError, match=r"resolution \(--resolution\) is for images"):
        prepare(make("fixmatch", resolution=32), vectors)
    bad = vectors.train.images.copy()
    bad[3] = np.nan
    with pytest.raises(DataError, match=r"NaN.* index 3"):
        DecodedImages(bad, vectors.train.labels)
