"""The benchmark of a GPU: it runs whole on a pretended device and on a CPU, and reports what is wrong."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from daso.cli import main
from daso.cli.processes.signals import Stop
from daso.files import read_json

TESTS = Path(__file__).parent


@pytest.fixture
def gpu(import_benchmark: Callable[[str], ModuleType]) -> Iterator[Any]:
    """Return the benchmark; what it sets for its whole process is put back."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    yield import_benchmark("gpu")
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


class Here:
    """Stands in for a process: runs a daso command in this one."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.status = main(list(arguments))

    def wait(self, timeout: float | None = None) -> int:
        return self.status


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_everything_runs_on_a_cpu_and_on_a_pretended_device(
    gpu: Any,
    device: str,
    cifar10_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in ("train", "helpers"):
        monkeypatch.syspath_prepend(str(TESTS / place))
    from pretend_cuda import pretend_cuda

    monkeypatch.setattr("gpu_trainings.start_daso", Here)
    monkeypatch.setattr(gpu, "device_exists", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    rows = tmp_path / "gpu.csv"
    options = gpu.Gpu(
        device=device,
        quick=True,
        rounds=2,
        out=tmp_path,
        results=rows,
        data=cifar10_folder / "cifar10",
    )
    if device == "cuda":
        with pretend_cuda() as pretended:
            gpu.main(options)
        assert sum(graph.played > 0 for graph in pretended.graphs) >= 4
    else:
        gpu.main(options)
    numbers = json.loads((tmp_path / "gpu.json").read_text(), parse_constant=pytest.fail)
    assert "skipped" not in numbers
    assert all("failed" not in section for section in numbers.values())
    recorded = {"bfloat16, joint batch norm, recorded"} if device == "cuda" else set()
    agreement = numbers["agreement"]
    for name in ["this device, the CPU", *(["recorded, eager"] if recorded else [])]:
        assert all(value <= gpu.TOLERANCE[key] for key, value in agreement[name].items())
    assert 0 < agreement["bfloat16, float32"]["weights"] < 1
    [steps] = [section for name, section in numbers.items() if name.startswith("small-4")]
    plain = {"float32, joint batch norm, eager", "bfloat16, joint batch norm, eager"}
    assert steps.keys() == plain | recorded
    with rows.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(steps)
    for side in steps.values():
        assert len(side["seconds"]) == 2
        assert side["share_of_limit"] > 0
    assert numbers["kernels"]["longest"]
    assert numbers["seeds side by side"]["1"] > 0
    assert numbers["cell of Table 1"]["evaluate"]["step"] == 8


def test_a_missing_device_is_reported(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "device_exists", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main(gpu.Gpu())
    with pytest.raises(SystemExit, match="--quick"):
        gpu.main(gpu.Gpu(device="cpu"))


def test_different_numbers_are_reported(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case_of = gpu.Case
    rates = iter([0.03, 0.033, 0.03, 0.03])

    class Case(case_of):  # type: ignore[misc, valid-type]
        def prepare(self, *arguments: Any, **train: Any) -> Any:
            return super().prepare(*arguments, **train, learning_rate=next(rates))

    monkeypatch.setattr(gpu, "Case", Case)
    wrong: list[str] = []
    gpu.measure_agreement(gpu.Gpu(device="cpu", quick=True), wrong, {})
    assert len(wrong) == 1
    assert wrong[0].startswith("this device, the CPU")


def test_a_section_that_fails_or_has_no_time_leaves_the_others(gpu: Any, tmp_path: Path) -> None:
    report = gpu.Report(tmp_path / "gpu.json", until=math.inf)

    def fails(numbers: dict[str, Any]) -> None:
        raise RuntimeError("out of memory")

    report.section("first", 1, fails)
    report.section("second", 1, lambda numbers: numbers.update(number=1))
    report.until = -math.inf
    report.section("third", 1, fails)
    expected = {
        "first": {"failed": "out of memory"},
        "second": {"number": 1},
        "skipped": ["third"],
    }
    assert report.numbers == expected
    assert read_json(tmp_path / "gpu.json") == {k: expected[k] for k in ("first", "second")}
    assert report.wrong == ["first: out of memory"]


def test_a_cell_is_stopped_when_the_time_is_up_and_resumed_by_the_next_call(
    gpu: Any, cifar10_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopsAtOnce(Stop):
        polled = 0

        def __call__(self) -> bool:
            self.polled += 1
            if self.polled == 5:
                self.signal = signal.SIGTERM
            return super().__call__()

    class TimesOut(Here):
        signals: tuple[int, ...] = ()

        def wait(self, timeout: float | None = None) -> int:
            if timeout is not None:
                raise subprocess.TimeoutExpired("daso", timeout)
            assert self.signals == (signal.SIGTERM,)
            return super().wait()

        def send_signal(self, number: int) -> None:
            self.signals = (*self.signals, number)

    options = gpu.Gpu(device="cpu", quick=True, out=tmp_path, data=cifar10_folder / "cifar10")
    monkeypatch.setattr("gpu_trainings.start_daso", TimesOut)
    with monkeypatch.context() as patch:
        patch.setattr("daso.cli.training.session.Stop", StopsAtOnce)
        numbers: dict[str, Any] = {}
        gpu.train_cell(options, 0.0, numbers)
    assert numbers["train"]["step"] < 8
    monkeypatch.setattr("gpu_trainings.start_daso", Here)
    numbers = {}
    gpu.train_cell(options, math.inf, numbers)
    assert numbers["evaluate"]["step"] == 8
    [resumed] = read_json(next(tmp_path.rglob("environment.json")))["resumed"]
    assert 0 < resumed["from_step"] < 8
