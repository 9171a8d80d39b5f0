"""The benchmark of a GPU: it runs where there is none, says so, and its parts work on one that is pretended."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from daso.cli.training.command import parse_train

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def modules(
    import_benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "train"))
    names = ("cases", "gpu", "gpu_cell", "gpu_sides", "pretend_cuda")
    return SimpleNamespace(**{name: import_benchmark(name) for name in names})


@pytest.fixture
def flags() -> Iterator[None]:
    """Put back what a way sets for its whole process."""
    owners = (torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")
    kept = [
        (owner, name, getattr(owner, name))
        for owner, name in (*owners, (torch.backends.cudnn, "benchmark"))
    ]
    yield
    for owner, name, value in kept:
        setattr(owner, name, value)


def test_everything_runs_once_without_a_gpu(tmp_path: Path) -> None:
    result, rows = tmp_path / "gpu.json", tmp_path / "gpu.csv"
    command = [
        sys.executable,
        str(BENCHMARKS / "gpu.py"),
        "--device",
        "cpu",
        "--smoke",
        "--rounds",
        "2",
    ]
    run = subprocess.run(
        [*command, "--json", str(result), "--results", str(rows)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(result.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert found["limits"].keys() == {"float32", "tf32", "bfloat16", "copy"}
    assert found["agreement"]["this device, the CPU"] == {
        "loss": 0,
        "weights": 0,
        "moving average": 0,
    }
    assert 0 < found["agreement"]["bfloat16, float32"]["weights"] < 1
    (sides,) = (section for name, section in found.items() if name.startswith("small-4"))
    assert set(sides) == {"conventional: tf32", "float32, channels-last", "bfloat16, channels-last"}
    with rows.open(encoding="utf-8", newline="") as file:
        written = {row["way"]: row for row in csv.DictReader(file)}
    for label, side in sides.items():
        assert len(side["seconds"]) == 2
        assert float(written[label]["milliseconds_low"]) > 0
        assert side["share_of_limit"] > 0
        if "channels-last" in label:
            assert side["in_a_run"] > 0
            assert side["parts"]["step, host"] <= side["parts"]["step"]
    assert found["kernels"]["busy"] > 0
    assert found["together"]["1"] > 0
    assert found["DASO beyond FixMatch and the EMA features"]["10"].keys() == {
        "conventional",
        "ours",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(modules: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no CUDA device here"):
        modules.gpu.main(modules.gpu.Gpu())
    with pytest.raises(SystemExit, match="is for --smoke alone"):
        modules.gpu.main(modules.gpu.Gpu(device="cpu"))
    with pytest.raises(SystemExit, match="there is no CUDA device here"):
        modules.gpu_cell.main(modules.gpu_cell.Cell(out=tmp_path / "run"))


def remote_here(threads: int, make: Any, *arguments: Any) -> Any:
    """Stand in for a process of its own."""
    made = make(*arguments)
    return SimpleNamespace(
        call=lambda method, *given: getattr(made, method)(*given), close=lambda: None
    )


@pytest.mark.usefixtures("flags")
def test_a_pretended_gpu_computes_what_the_cpu_does(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = modules.cases.Case(modules.gpu.TINY, "fixmatch+daso", 10, "cuda", "wall")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with modules.pretend_cuda.pretend_cuda() as cuda:
        for way in (modules.gpu.PLAIN, dataclasses.replace(modules.gpu.PLAIN, graph=True)):
            apart = modules.gpu_sides.Agreement(case, way, "cpu", modules.gpu.PLAIN).after(20)
            assert all(value <= modules.gpu.TOLERANCE[name] for name, value in apart.items()), apart
        assert [graph.played for graph in cuda.graphs] == [17]
        loop = modules.gpu_sides.OurLoop(case, modules.gpu.RECORDED)
        assert loop.seconds(6) > 0
        assert loop.parts(3)["step"] > 0
        assert [graph.played for graph in cuda.graphs] == [17, 6]


@pytest.mark.usefixtures("flags")
def test_other_numbers_are_told(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = modules.gpu
    monkeypatch.setattr(gpu, "Remote", remote_here)
    wrong: list[str] = []
    gpu.compare_numbers(gpu.Gpu(device="cpu", smoke=True), wrong, {})
    assert wrong == []
    prepare_way = modules.gpu_sides.prepare_way
    rates = iter([0.03, 0.033, 0.03, 0.03])
    monkeypatch.setattr(
        modules.gpu_sides,
        "prepare_way",
        lambda case, way: prepare_way(case, way, learning_rate=next(rates)),
    )
    gpu.compare_numbers(gpu.Gpu(device="cpu", smoke=True), wrong, {})
    assert len(wrong) == 1
    assert wrong[0].startswith("this device, the CPU: not the same numbers")


def test_a_section_that_fails_or_has_no_time_leaves_the_others(modules: SimpleNamespace) -> None:
    report = modules.gpu.Report(modules.gpu.Gpu(), until=math.inf)

    def fails(found: dict[str, Any]) -> None:
        raise RuntimeError("out of memory")

    report.section("first", 1, fails)
    report.section("second", 1, lambda found: found.update(number=1))
    report.until = -math.inf
    report.section("third", 1, fails)
    assert report.found == {
        "first": {"failed": "out of memory"},
        "second": {"number": 1},
        "left_out": ["third"],
    }
    assert report.wrong == ["first: out of memory"]


def test_a_cell_is_begun_and_gone_on_with(modules: SimpleNamespace, tmp_path: Path) -> None:
    cell = modules.gpu_cell.Cell(out=tmp_path / "run", data=tmp_path)
    begin = modules.gpu_cell.command_of(cell)
    assert begin[1:4] == ["-m", "daso", "train"]
    train = parse_train(begin[4:]).train
    assert (train.precision, train.cuda_graph, train.device) == (
        "bfloat16",
        True,
        "cuda",
    )
    cell.out.mkdir()
    (cell.out / "config.json").write_text("{}")
    resume = modules.gpu_cell.command_of(cell)
    assert resume[3:] == ["resume", str(cell.out), "--data", str(tmp_path)]
