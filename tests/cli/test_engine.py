"""``daso reproduce --engine``: cells as jobs of a scheduler, preempted and queued again, and the table at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daso.cli import main
from daso.cli.processes.slurm import Jobs
from daso.errors import OptionError
from daso.files import read_json
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, table_cells
from daso.reproduce.paper_tables import TableColumn, paper_tables
from daso.reproduce.scales import SCALES
from daso.train.folder.checkpoint import newest_step

pytest.importorskip("submitit")

Capture = pytest.CaptureFixture[str]
PRESET = "cifar10-n500-g100"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def arguments(out: Path, data: Path, *more: str) -> list[str]:
    cells = f"reproduce 1 --rows supervised --columns {PRESET} --seeds 0,1 --scale smoke"
    return [*cells.split(), "--device", "cpu", "--out", str(out), "--data", str(data), *more]


def wait_for(condition: Callable[[], Any], controller: int) -> None:
    """Wait for something that a job does, as long as the process that controls it lives."""
    while not condition():
        assert Path(f"/proc/{controller}").exists()
        time.sleep(0.05)


def test_one_command_submits_an_array_and_prints_the_table(
    cifar10_folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "srun", "sacct"):
        script = Path(__file__).parents[1] / "helpers" / "slurm_stub.py"
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {script} {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_STUB", str(tmp_path))
    monkeypatch.setattr("daso.cli.processes.cells.POLL_SECONDS", 0.1)
    out = tmp_path / "out"
    engine = ["--engine", "slurm", "--engine-options", "slurm_partition=gpu", "gpus_per_node=1"]
    command = arguments(out, cifar10_folder, *engine, "--jobs", "5", "--wait")
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "0 of them complete, 2 with a job" in printed.err
    assert "job 7_1" in printed.err
    assert "(2)" in printed.out  # seeds in the table
    script = (tmp_path / "script").read_text()
    for line in (
        "--array=0-1%2",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--time=1440",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}" in script
    environment = read_json(next(out.rglob("environment.json")))
    assert environment["command"].startswith("daso reproduce 1 --rows supervised")
    assert main(command) == 0  # nothing is submitted again
    assert "2 of them complete, 0 with a job" in capsys.readouterr().err


@pytest.fixture
def endless(cifar10_folder: Path, tmp_path: Path) -> tuple[Campaign, Cell]:
    """Return a campaign whose runs do not end, and a cell of it."""
    train = {**SCALES["smoke"].train, "steps": 10**7, "evaluate_every": 10**6}
    scale = dataclasses.replace(SCALES["smoke"], train=train)
    campaign = Campaign(tmp_path / "out", scale, cifar10_folder, "cpu")
    campaign.begin()
    table = paper_tables()[1]
    row = next(row for row in table.rows if row.text == "supervised")
    part = table.part([row], [TableColumn(PRESET, PRESET, "last")])
    return campaign, table_cells([part], [0])[0][0]


def processes_of(controller: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == controller:
                yield int(path.parent.name)


def test_a_job_whose_time_is_up_is_saved_and_queued_again(endless: tuple[Campaign, Cell]) -> None:
    campaign, cell = endless
    folder = campaign.folder_of(cell)
    jobs = Jobs(campaign, "local")
    job = jobs.submit([cell], 1, ["reproduce"])[str(cell)]
    controller = int(job.job_id)
    try:
        wait_for((folder / "metrics.jsonl").exists, controller)
        assert jobs.submit([cell], 1, ["reproduce"]) == {}  # somebody is at it
        [process] = processes_of(controller)
        os.kill(process, signal.SIGUSR2)  # as Slurm does before it ends a job
        wait_for(lambda: "resumed" in read_json(folder / "environment.json"), controller)
        [resumed] = read_json(folder / "environment.json")["resumed"]
        step = newest_step(folder / "checkpoints")
        assert step is not None
        assert 0 < resumed["from_step"] <= step
        [again] = processes_of(controller)
        assert again != process
        os.kill(again, signal.SIGTERM)  # canceled, or the machine taken back: saved, not ended
        wait_for(lambda: campaign.state(cell) == "started", controller)
        assert (newest_step(folder / "checkpoints") or 0) > resumed["from_step"]
        assert again in processes_of(controller)
    finally:
        for process in (controller, *processes_of(controller)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_what_an_engine_does_not_know(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "out", SCALES["smoke"])
    with pytest.raises(OptionError, match="name=value"):
        Jobs(campaign, "local", ["gpus"])
    with pytest.raises(OptionError, match="slurm_speed"):
        Jobs(campaign, "local", ["slurm_speed=9"])
