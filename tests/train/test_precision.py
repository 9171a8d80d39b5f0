"""The precision that a machine decides: measured once, kept, recorded in the run."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from quick_defaults import MEASURING

from daso.cli import main
from daso.data.benchmarks.download import cache_folder
from daso.data.images.decoded import DecodedImages
from daso.data.source import Source
from daso.nets.distributed import Processes
from daso.presets.benchmarks import PRESETS
from daso.reproduce.campaign import Campaign
from daso.train.config import RunConfig
from daso.train.encoder import precision
from daso.train.encoder.precision import choose_precision, measure_gain, resolve_precision
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run
from tests.conftest import MakeConfig, MakeFolder

CPU = torch.device("cpu")
Machine = Callable[..., list[float]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """Return a function that pretends another processor and returns what will have been measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_choose_on_cpu", MEASURING)

    def pretend(gain: float, *, units: tuple[str, ...] = ("amx",), arch: str = "x86_64") -> Any:
        measured: list[float] = []

        def measure() -> float:
            measured.append(gain)
            return gain

        monkeypatch.setattr(precision, "measure_gain", measure)
        monkeypatch.setattr(precision, "_units", lambda: units)
        monkeypatch.setattr(platform, "machine", lambda: arch)
        precision._choose_on_cpu.cache_clear()
        return measured

    yield pretend
    precision._choose_on_cpu.cache_clear()


def test_measuring_decides_where_it_can(machine: Machine) -> None:
    cases: list[tuple[dict[str, Any], str, int]] = [
        ({"gain": 2.9}, "bfloat16", 1),
        ({"gain": 1.01}, "float32", 1),
        ({"gain": 0.3, "arch": "aarch64", "units": ()}, "float32", 1),
        ({"gain": 1.8, "arch": "aarch64", "units": ()}, "bfloat16", 1),
        ({"gain": 9.0, "units": ()}, "float32", 0),  # x86 that emulates it
    ]
    for pretended, expected, times in cases:
        measured = machine(**pretended)
        (cache_folder() / precision.FILE).unlink(missing_ok=True)
        choice = choose_precision(CPU)
        assert (choice.precision, len(measured)) == (expected, times), pretended
        assert expected in choice.reason
        if times:
            assert f"{pretended['gain']:.1f} times" in choice.reason
        choose_precision(CPU)
        assert len(measured) == times


def test_a_frozen_encoder_takes_bfloat16_where_there_are_units(machine: Machine) -> None:
    measured = machine(1.0)
    assert choose_precision(CPU, frozen=True).precision == "bfloat16"
    assert resolve_precision(TrainOptions(freeze=True), CPU, False).precision == "bfloat16"
    assert measured == []
    machine(9.0, units=())
    assert choose_precision(CPU, frozen=True).precision == "float32"


def test_what_was_measured_is_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(2.5) == []
    choose_precision(CPU)
    again = machine(0.5)
    assert choose_precision(CPU).precision == "bfloat16"
    assert again == []
    for change in ("torch", "processor"):
        with monkeypatch.context() as changed:
            if change == "torch":
                changed.setattr(torch, "__version__", "3.0")
            else:
                changed.setattr(precision, "processor", lambda: "another one")
            measured = machine(0.5)
            assert choose_precision(CPU).precision == "float32", change
            assert measured == [0.5], change
    kept = json.loads((cache_folder() / precision.FILE).read_text())
    assert sorted(kept.values()) == [0.5, 0.5, 2.5]


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", b'{"a": "b", "c": NaN}', b"folder"])
def test_a_broken_file_is_written_anew(machine: Machine, content: bytes) -> None:
    path = cache_folder() / precision.FILE
    path.parent.mkdir(parents=True)
    if content == b"folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    measured = machine(2.0)
    assert choose_precision(CPU).precision == "bfloat16"
    assert measured == [2.0]
    if content != b"folder":
        assert list(json.loads(path.read_text()).values()) == [2.0]
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_measuring_measures_and_draws_no_random_number() -> None:
    for grad in (True, False):
        state, threads = torch.random.get_rng_state(), torch.get_num_threads()
        with torch.set_grad_enabled(grad):
            gain = measure_gain(0)
        assert torch.get_num_threads() == threads, grad
        assert math.isfinite(gain), grad
        assert gain > 0, grad
        assert torch.equal(torch.random.get_rng_state(), state), grad


def test_a_run_records_it_and_keeps_it_elsewhere(
    machine: Machine, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    machine(3.0)
    prepared = prepare(tiny_config("supervised", precision="auto"), digits)
    rows = train_run(prepared, tmp_path / "run", lambda: prepared.step >= 5)
    assert max(row["step"] for row in rows) < 20
    assert RunConfig.read(tmp_path / "run").train.precision == "bfloat16"
    machine(1.0, units=())
    warnings: list[str] = []
    resumed, rows = resume_run(tmp_path / "run", warnings.append)
    assert list(rows)[-1]["step"] == 20
    assert resumed.training.network.precision == "bfloat16"
    assert any("bfloat16" in warning for warning in warnings)
    assert RunConfig.read(tmp_path / "run").train.precision == "bfloat16"


def test_float32_leaves_the_fingerprint_of_older_runs(tiny_config: MakeConfig) -> None:
    configs = {name: tiny_config(precision=name) for name in ("float32", "bfloat16")}
    assert configs["float32"].fingerprint() != configs["bfloat16"].fingerprint()
    values = configs["float32"].to_dict()
    assert RunConfig.from_dict(values, "here").fingerprint() == configs["float32"].fingerprint()


def test_vectors_stay_in_float32(machine: Machine, tiny_config: MakeConfig) -> None:
    measured = machine(3.0)
    vectors = DecodedImages(np.zeros((60, 1, 5), np.float32), np.arange(60) % 3)
    source = Source("vectors", ("a", "b", "c"), vectors)
    config = replace(tiny_config("supervised", network=None), split=RunConfig("", "").split)
    config = replace(config, train=replace(config.train, precision="auto"))
    assert prepare(config, source).config.train.precision == "float32"
    assert measured == []


def test_the_first_process_decides(machine: Machine) -> None:
    class Two:
        def __init__(self, rank: int) -> None:
            self.rank, self.told = rank, list[str]()

        def tell(self, value: str) -> list[tuple[str, str]]:
            self.told.append(value)
            return [("one", "bfloat16" if self.rank else value), ("two", value)]

    measured = machine(2.0)
    for rank in (0, 1):
        processes = cast(Processes, Two(rank))
        options = resolve_precision(TrainOptions(), CPU, False, processes)
        assert options.precision == "bfloat16", rank
    assert measured == [2.0]  # by the first alone


def test_the_papers_numbers_are_in_float32(machine: Machine, tmp_path: Path) -> None:
    machine(3.0)
    for name, preset in PRESETS.items():
        assert preset.defaults.options["precision"] == "float32", name
    cell = {"full": "float32", "smoke": "float32", "lite": "bfloat16"}
    for scale, expected in cell.items():
        campaign = Campaign.open(tmp_path / scale, scale, device="cpu")
        campaign.begin()
        # Another machine takes part in the same campaign.
        machine(1.0)
        there = Campaign.open(tmp_path / scale)
        there.begin()
        for one in (campaign, there):
            config = one.scale.configure(PRESETS["cifar10-n500-g100"], "fixmatch", {})
            assert config.train.precision == expected, scale
        machine(3.0)


def test_the_command_says_what_it_chose(
    machine: Machine,
    make_image_folder: MakeFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(2.9)
    training = "--steps 2 --batch 4 --evaluate-every 1 --network small-4 --method supervised"
    command = ["train", str(make_image_folder()), "--device", "cpu", *training.split()]
    for number, (given, times) in enumerate(
        (([], 1), (["--precision", "float32"], 0), (["--quiet"], 0))
    ):
        out = tmp_path / str(number)
        assert main([*command, *given, "--out", str(out)]) == 0
        assert capsys.readouterr().err.count("2.9 times") == times, given
        chosen = "float32" if "float32" in given else "bfloat16"
        assert RunConfig.read(out).train.precision == chosen
