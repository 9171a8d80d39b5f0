"""A head that is computed after each step, not trained: CDMAD's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from daso.data.source import Source
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run
from tests.conftest import MakeConfig

CPU = torch.device("cpu")


def test_a_stopped_run_goes_on_bit_for_bit_and_classifies_less_its_bias(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("cdmad", steps=8, evaluate_every=4)
    whole = list(train_run(prepare(config, digits), tmp_path / "whole"))
    rows = train_run(prepare(config, digits), tmp_path / "stopped")
    assert next(row for row in rows if row["event"] == "evaluate")["step"] == 4
    rows.close()  # type: ignore[attr-defined]
    monkeypatch.setattr("daso.train.prepare.open_configured", lambda *_, **__: digits)
    list(resume_run(tmp_path / "stopped")[1])
    whole_model, model = (load_model(tmp_path / n, CPU, pytest.fail) for n in ("whole", "stopped"))
    state = whole_model.network.state_dict()
    assert all(torch.equal(state[n], v) for n, v in model.network.state_dict().items())
    assert len(whole[-1]["pseudo_labels"]["blank_guess"]) == 10

    network = model.network.eval()
    assert network.output == "debiased"
    assert digits.test is not None
    images = torch.from_numpy(digits.test.images[:20])
    blank = torch.full_like(images[:1], 255)
    with torch.no_grad():
        expected = network.classify(network(images)) - network.classify(network(blank))
        found = network.classify(network.represent(images), network.output)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
