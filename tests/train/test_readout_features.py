"""What a readout reads: which features, how mirrored, how weighted, and each of them once."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from run_files import train

from daso.data.source import Source
from daso.errors import OptionError
from daso.evaluate.predict import represent_in_batches
from daso.files import read_json, read_rows
from daso.nets.encoders.patches import PatchEncoder
from daso.nets.network import Network
from daso.readout.joining import OVERFIT_SCALE
from daso.train import readout
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import train_run
from daso.train.view_options import ViewOptions
from tests.conftest import MakeConfig

CPU = torch.device("cpu")
STEPS = 7
BRIEF = {"steps": STEPS, "evaluate_every": 3, "log_every": 2}
TWICE = BRIEF | {"evaluate_every": STEPS}
"""Options of a run that fits its readout at the start and at the end."""


def test_images_are_mirrored_as_told(tiny_config: MakeConfig, digits: Source) -> None:
    for mirror, flip, mirrorings in (
        ("both", None, 3),
        ("none", True, 0),
        ("horizontal", None, 1),
        ("auto", False, 0),
    ):
        views = ViewOptions(flip=flip)
        options = {"mirror": mirror, "dimensions": 16}
        config = tiny_config("supervised+mixture", method_options=options, **BRIEF)
        prepared = prepare(dataclasses.replace(config, augmentation=views), digits)
        assert prepared.readout is not None, mirror
        row = prepared.readout.start(prepared.training.average.network)
        assert row["mirrorings"] == mirrorings


def test_a_weight_that_is_given_is_used(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    options = {"mixture_weight": 0.7, "dimensions": 20}
    prepared = prepare(
        tiny_config("supervised+mixture", method_options=options, **(BRIEF | {"steps": 0})), digits
    )
    folder = train(prepared, tmp_path / "run")
    (row,) = read_rows(folder / "metrics.jsonl")
    assert row["readout"]["unlabeled_weight"] == 0.7
    readout = prepared.training.average.network.readout
    assert readout is not None
    weight, temperature = readout.chosen.tolist()
    assert (weight, temperature) == pytest.approx((0.7, row["readout"]["temperature"]))
    assert readout.weight.shape == (20, 10)
    assert read_json(folder / "config.json")["method_options"]["mixture_weight"] == 0.7
    assert read_json(folder / "summary.json")["deployed_step"] == 0

    with pytest.raises(OptionError, match="readout"):
        prepare(tiny_config("supervised", steps=0), digits)


def test_patches_of_many_images_keep_more_components(
    tiny_config: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(**options: Any) -> int:
        config = tiny_config("supervised+mixture", method_options=options)
        fitter = prepare(config, digits).readout
        assert fitter is not None
        return fitter.dimensions

    assert kept() == 128
    monkeypatch.setattr(readout, "ENOUGH_IMAGES", 100)
    assert kept() == 256
    assert kept(join_patches=False) == 128
    assert kept(dimensions=20) == 20


def test_patches_of_an_image_are_encoded_once_after_the_first_fit(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = PatchEncoder.forward

    def spy(self: PatchEncoder, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(PatchEncoder, "forward", spy)
    prepared = prepare(tiny_config("supervised+la+mixture", **BRIEF), digits)
    data, run = prepared.data, train_run(prepared, tmp_path / "run")
    next(run)
    assert data.test is not None
    assert data.unlabeled is not None
    seen.clear()
    list(run)  # two evaluations and the beliefs
    assert not seen
    network = prepared.training.average.network
    for pool, index in ((data.test, None), (data.unlabeled, torch.tensor([5, 0, 3]))):
        found, expected = (
            torch.cat(list(represent(network, pool.images, index=index)))
            for represent in (prepared.training.represent, represent_in_batches)
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(readout, "MOST_KNOWN", 1)
    list(prepared.training.represent(network, data.test.images))
    assert sum(seen) > 2 * len(data.test), "too many to keep"


def test_a_trained_network_weighs_less_than_the_patches(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    """Its features fit the labels too well; how much less, an option says."""
    shares = []
    for scale in (None, OVERFIT_SCALE, 1.0):
        options = {"network_scale": scale, "dimensions": 20}
        config = tiny_config("supervised+mixture", method_options=options, **TWICE)
        prepared = prepare(config, digits)
        train(prepared, tmp_path / str(scale))
        readout = prepared.training.average.network.readout
        assert readout is not None
        norms = {name: float(block.share.norm()) for name, block in readout.blocks.items()}
        shares.append(norms["network"] / norms["patches"])
    assert shares[0] == shares[1] < 0.6 * shares[2]


def test_the_features_of_an_untrained_network_are_not_computed(
    monkeypatch: pytest.MonkeyPatch, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("the first readout reads patches only")

    with monkeypatch.context() as patched:
        patched.setattr(Network, "forward", refuse)
        prepared = prepare(tiny_config("supervised+mixture", **BRIEF), digits)
        folder = train(prepared, tmp_path / "run", 0)
    model = load_model(folder, CPU, pytest.fail)
    assert digits.test is not None
    images = torch.from_numpy(np.asarray(digits.test.images[:8]))
    used = prepared.training.represent(prepared.training.average.network, images)
    torch.testing.assert_close(torch.cat(list(used)), model.network.represent(images))


def test_a_first_model_needs_no_compiler() -> None:
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from daso.nets.network import Network, build_encoder\n"
        "from daso.readout.logistic import fit_logistic\n"
        "from daso.train.options import TrainOptions\n"
        "from daso.train.step.optimizer import make_optimizer\n"
        "network = Network(build_encoder('small', 1, 8), {'class': 2}, [0.5], [0.5])\n"
        "for name in ('sgd', 'adamw'):\n"
        "    options = TrainOptions(optimizer=name)\n"
        "    assert make_optimizer(network, options, 0.1).param_groups\n"
        "fit_logistic(torch.eye(2), torch.eye(2), torch.ones(2))\n"
        "sys.exit('torch._dynamo' in set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
