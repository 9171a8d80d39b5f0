"""A head that is computed after each step, not trained: CDMAD's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_files import assert_same_run, comparable, train

from daso.data.source import Source
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import resume_run
from tests.conftest import MakeConfig

CPU = torch.device("cpu")


def test_a_stopped_run_goes_on_bit_for_bit_and_classifies_less_its_bias(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("cdmad", steps=8, evaluate_every=4)
    whole = train(prepare(config, digits), tmp_path / "whole")
    stopped = train(prepare(config, digits), tmp_path / "stopped", 4)
    monkeypatch.setattr("daso.train.prepare.open_configured", lambda *_, **__: digits)
    list(resume_run(stopped)[1])
    assert_same_run(whole, stopped)
    assert len(comparable(whole)[-1]["pseudo_labels"]["blank_guess"]) == 10

    network = load_model(stopped, CPU, pytest.fail).network.eval()
    assert network.output == "debiased"
    assert digits.test is not None
    images = torch.from_numpy(digits.test.images[:20])
    blank = torch.full_like(images[:1], 255)
    with torch.no_grad():
        expected = network.classify(network(images)) - network.classify(network(blank))
        found = network.classify(network.represent(images), network.output)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
