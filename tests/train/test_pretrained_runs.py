"""Runs that start from pretrained encoders: rates by depth, AdamW, checkpoints, and runs as backbones."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import assert_same_run, train
from torch import nn

from daso.data.source import Source
from daso.errors import OptionError, RunError
from daso.evaluate.predict import predict_logits
from daso.nets.layer_depth import depths_from_top
from daso.nets.network import Network, build_encoder
from daso.train.config import RunConfig
from daso.train.encoder import pretrained as backbones
from daso.train.encoder.embeddings import EmbeddedData
from daso.train.model import load_model
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run
from daso.train.step.optimizer import parameter_groups
from tests.conftest import MakeConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pretrained(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: MakeConfig, digits: Source
) -> Path:
    """Return a finished run of a small network, long enough to have learned something."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    config = tiny_config(
        "supervised", network="wrn-10-1", steps=60, evaluate_every=60, batch=32, ema_decay=0.9
    )
    list(train_run(prepare(config, digits), folder))
    return folder


def network_of(name: str = "wrn-10-1") -> Network:
    torch.manual_seed(0)
    return Network(build_encoder(name, 1, 8), {"class": 3}, [0.5], [0.5])


def test_without_options_there_is_one_group_at_the_full_rate() -> None:
    (group,) = parameter_groups(network_of(), TrainOptions(), 0.03)
    assert (group["factor"], group["weight_decay"]) == (1, 5e-4)
    assert len(group["params"]) == len(list(network_of().parameters()))


def test_rates_fall_from_block_to_block() -> None:
    network = network_of()
    options = TrainOptions(layer_decay=0.5, backbone_rate=0.01)
    names = {id(p): name for name, p in network.named_parameters()}
    groups = parameter_groups(network, options, 0.04)
    factor = {names[id(p)]: group["factor"] for group in groups for p in group["params"]}
    assert factor.keys() == set(names.values())
    assert factor["heads.class.weight"] == 1
    expected = {
        "norm.weight": 0,
        "blocks.2.conv2.weight": 1,
        "blocks.1.norm1.bias": 2,
        "blocks.0.conv1.weight": 3,
    }
    expected["stem.weight"] = 4
    for name, depth in expected.items():
        assert factor[f"encoder.{name}"] == pytest.approx(0.25 * 0.5**depth), name
    assert names[id(groups[0]["params"][0])] == "encoder.stem.weight", (
        "the first one tells of broken gradients"
    )


def test_norms_and_biases_do_not_decay_with_adamw() -> None:
    network = network_of()
    names = {id(p): name for name, p in network.named_parameters()}
    groups = parameter_groups(network, TrainOptions(optimizer="adamw", weight_decay=0.1), 0.01)
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert (decay["encoder.stem.weight"], decay["heads.class.weight"]) == (0.1, 0.1)
    assert (decay["encoder.norm.weight"], decay["heads.class.bias"]) == (0, 0)


def test_an_encoder_without_blocks_is_refused() -> None:
    with pytest.raises(OptionError, match="SmallConvNet has no recognizable blocks"):
        depths_from_top(build_encoder("small-4", 1, 8))  # type: ignore[arg-type]


def test_a_step_moves_each_layer_at_its_rate(tiny_config: MakeConfig, digits: Source) -> None:
    config = tiny_config(
        "supervised", network="wrn-10-1", momentum=0.0, weight_decay=0.0, learning_rate=0.1, schedule="constant",
        layer_decay=0.5, backbone_rate=0.02,
    )  # fmt: skip
    prepared = prepare(config, digits)
    training, network = prepared.training, prepared.training.network
    before = copy.deepcopy(network.state_dict())
    training.advance(prepared.batches(0))
    for name, factor in (
        ("heads.class.weight", 1.0),
        ("encoder.blocks.2.conv2.weight", 0.2 * 0.5),
        ("encoder.stem.weight", 0.2 * 0.5**4),
    ):
        parameter = network.get_parameter(name)
        assert parameter.grad is not None
        torch.testing.assert_close(
            before[name] - parameter, factor * 0.1 * parameter.grad, atol=1e-7, rtol=1e-3
        )


def test_adamw_does_what_torch_says(tiny_config: MakeConfig, digits: Source) -> None:
    config = tiny_config(
        "supervised", optimizer="adamw", weight_decay=0.1, schedule="constant", steps=3
    )
    assert prepare(config, digits).config.train.learning_rate == 1e-3
    prepared = prepare(config, digits)
    network = prepared.training.network
    own = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in own.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in own.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.999),
    )
    for step in range(3):
        batch = prepared.batches(step)
        prepared.training.advance(batch)
        own.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(own.classify(own(batch.labeled[0])), batch.labels).backward()
        optimizer.step()
    for name, parameter in own.named_parameters():
        torch.testing.assert_close(parameter, network.get_parameter(name), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw"}, {"layer_decay": 0.7}, {"momentum": 0.0}]
)
def test_a_stopped_run_goes_on_bit_for_bit(
    changes: dict[str, Any],
    pretrained: Path,
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config("fixmatch+daso", network=str(pretrained), **changes)
    whole = train(prepare(config, digits), tmp_path / "whole")
    stopped = train(prepare(config, digits), tmp_path / "stopped", 10)
    monkeypatch.setattr("daso.train.prepare.open_configured", lambda *_, **__: digits)
    # What it started from is in the run folder.
    monkeypatch.setattr(
        "daso.train.encoder.pretrained.open_backbone", lambda *_: pytest.fail("looked elsewhere")
    )
    list(resume_run(stopped)[1])
    assert_same_run(whole, stopped)


def test_a_checkpoint_of_another_optimizer_is_refused(
    tiny_config: MakeConfig, digits: Source
) -> None:
    first = prepare(tiny_config("supervised"), digits)
    first.training.advance(first.batches(0))
    other = prepare(tiny_config("supervised", optimizer="adamw"), digits)
    with pytest.raises(RunError, match="of another configuration"):
        other.training.load(first.training.tensors(), 1, 0.0)


def test_a_run_starts_from_the_encoder_of_another(
    pretrained: Path, tiny_config: MakeConfig, digits: Source
) -> None:
    prepared = prepare(
        tiny_config("supervised", network=str(pretrained), split=tiny_config().split), digits
    )
    source = load_model(pretrained, CPU, pytest.fail).network
    assert digits.test is not None
    images = torch.from_numpy(digits.test.images[:20])
    with torch.no_grad():
        torch.testing.assert_close(prepared.training.network.eval()(images), source(images))
    learning_rate = prepared.config.train.learning_rate
    assert learning_rate is not None
    assert prepared.config.train.backbone_rate == pytest.approx(learning_rate / 10)


def test_frozen_on_a_run_and_loaded_without_it(
    pretrained: Path, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    options = {"freeze": True, "embedding_folder": str(tmp_path / "embeddings")}
    config = tiny_config(
        "fixmatch+daso", network=str(pretrained), steps=60, evaluate_every=60, **options
    )
    prepared = prepare(config, digits)
    assert isinstance(prepared.data, EmbeddedData)
    rows = list(train_run(prepared, tmp_path / "run"))
    hidden = pretrained.rename(tmp_path / "elsewhere")
    try:
        model = load_model(tmp_path / "run", CPU, pytest.fail)
    finally:
        hidden.rename(pretrained)
    assert digits.test is not None
    answers = predict_logits(model.network, torch.from_numpy(digits.test.images)).argmax(1).numpy()
    recall = [(answers[digits.test.labels == k] == k).mean() for k in range(10)]
    assert rows[-1]["test"]["recall"] == pytest.approx(recall, abs=0.03)


def test_folders_that_hold_no_network_are_refused(
    pretrained: Path, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    def refused(name: str, **options: Any) -> str:
        with pytest.raises(OptionError) as caught:
            prepare(tiny_config("supervised", network=name, **options), digits)
        return str(caught.value)

    assert "no such folder" in refused(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    assert "holds no network" in refused(str(tmp_path / "empty"))
    color = dataclasses.replace(
        digits, train=dataclasses.replace(digits.train, images=digits.train.images.repeat(3, axis=1)), test=None,
        mean=None, std=None,
    )  # fmt: skip
    config: RunConfig = tiny_config("supervised", network=str(pretrained))
    with pytest.raises(OptionError, match="grayscale"):
        prepare(config, color)


def test_a_name_of_the_hub_is_asked_for_without_its_prefix(
    monkeypatch: pytest.MonkeyPatch, tiny_config: MakeConfig, digits: Source, pretrained: Path
) -> None:
    asked: list[tuple[str, Path | None, int | None]] = []

    def open_transformers(name: str, folder: Path | None, resolution: int | None) -> Any:
        asked.append((name, folder, resolution))
        return backbones.open_backbone(TrainOptions(network=str(pretrained)), (1, 8, 8))

    monkeypatch.setattr(backbones, "open_transformers", open_transformers)
    config = prepare(
        tiny_config("supervised", network="hf:facebook/dinov2-small", resolution=16), digits
    ).config
    assert asked == [("facebook/dinov2-small", None, 16)]
    assert config.train.network == "hf:facebook/dinov2-small"
    with pytest.raises(OptionError, match="--weights is for networks of daso"):
        prepare(tiny_config("supervised", network="hf:a/b", weights="w.safetensors"), digits)


def test_a_folder_that_is_called_like_a_network_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in (("small", False), ("wrn-10-1", False), ("own", True)):
        (tmp_path / name).mkdir()
        assert backbones.is_folder(name) == folder, name
    assert backbones.is_folder("./small")
