"""The measured images are predicted once for each state of the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daso.data.source import Source
from daso.evaluate.metrics import confusion_matrix
from daso.evaluate.predict import predict_logits, represent_in_batches
from daso.files import read_arrays, read_json
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig


@pytest.mark.parametrize("deploy", ["last", "best"])
def test_what_a_run_says_of_its_model_is_what_the_model_answers(
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
    deploy: str,
) -> None:
    predicted = []

    def counted(network: Any, images: Any, index: Any = None) -> Iterator[torch.Tensor]:
        if index is None:
            predicted.append(len(images))
        return represent_in_batches(network, images, index=index)

    # A rate at which the last network is rarely the best one.
    config = tiny_config("supervised", steps=8, evaluate_every=2, deploy=deploy, learning_rate=0.5)
    prepared = prepare(config, digits)
    prepared.training.represent = counted
    rows = list(train_run(prepared, tmp_path / "run"))
    evaluations = sum(row["event"] == "evaluate" for row in rows)
    assert evaluations == 4
    pools = [pool for pool in (prepared.data.test, prepared.data.holdout) if pool is not None]
    assert len(predicted) == len(pools) * (evaluations + (deploy == "best"))

    data, test = prepared.data, prepared.data.test
    assert test is not None
    model = load_model(tmp_path / "run", torch.device("cpu"), pytest.fail)
    answers = predict_logits(model.network, test.images).argmax(1).numpy()
    truth = test.labels.numpy()
    counts = read_json(tmp_path / "run" / "confusion.json")["counts"]
    assert counts == confusion_matrix(truth, answers, len(data.class_names)).tolist()
    arrays, _ = read_arrays(tmp_path / "run" / "beliefs.safetensors", "beliefs")
    np.testing.assert_array_equal(arrays["test.answer"], answers)
