"""Processes that train together, without torchrun's help: what they agree on first, and how they end."""

from __future__ import annotations

import json
import shutil
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from forked import finish, run_script, start
from ports import free_port
from sklearn.datasets import load_digits

from daso.nets.network import build_encoder

SCRIPT = """
import json, os, sys, time
from pathlib import Path
rank = os.environ["RANK"]
place = Path(f"machine-{rank}")
os.chdir(place)
os.environ |= json.loads(Path("environment.json").read_text()) if Path("environment.json").exists() else {}
import daso.train.folder.environment, daso.train.prepare
if version := os.environ.get("DASO_AS_IF"):
    daso.train.folder.environment.importlib.metadata.version = lambda name: version
embed = daso.train.prepare.embed_data
def counted(*arguments):
    data = embed(*arguments)
    Path("computed").write_text(str(data.computed))
    return data
daso.train.prepare.embed_data = counted
import daso.cli.processes.torchrun
end, late = daso.cli.processes.torchrun._end, float(os.environ.get("DASO_LATE", "0"))
daso.cli.processes.torchrun._end = lambda *arguments: (time.sleep(late), end(*arguments))
import daso.train.run
append = daso.train.run.append_line
def full(path, row):
    if row["step"] > 4:
        raise daso.errors.RunError(f"cannot write {path.name}: No space left on device")
    append(path, row)
if "DASO_FULL" in os.environ:
    daso.train.run.append_line = full
import torch
torch.set_default_dtype(torch.float64)  # where a true difference is larger than rounding
torch.Tensor.float = torch.Tensor.double
compiled = torch.compile
torch.compile = lambda method, fullgraph: compiled(method, fullgraph=fullgraph, backend="aot_eager")
from daso.cli import main
status = main()
from shared_training import assert_no_threads_of_the_group
assert_no_threads_of_the_group()
raise SystemExit(status)
"""
OPTIONS = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 10 --gamma-unlabeled 10 --batch 8 --device cpu"
OPTIONS += " --evaluate-every 4 --learning-rate 0.01 --quiet --precision float32"
OPTIONS += " --method fixmatch+daso --histogram-period 4"


class Machines:
    """Two processes, each in a folder of its own with its own copy of the images, as on two machines."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "script.py").write_text(SCRIPT)
        pixels, labels = load_digits(return_X_y=True)
        images = (pixels.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
        for rank in (0, 1):
            folder = place / f"machine-{rank}"
            folder.mkdir()
            test = np.arange(len(labels)) % 5 == 0
            np.savez(
                folder / "own.npz",
                train_images=images[~test],
                train_labels=labels[~test],
                test_images=images[test],
                test_labels=labels[test],
            )

    def start(self, *arguments: str | Path) -> list[BaseProcess]:
        command = ["train", "own.npz", "--out", self.place / "run", *OPTIONS.split(), *arguments]
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        return [
            self._start(where | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, *command)
            for rank in (0, 1)
        ]

    def _start(self, environment: dict[str, str], *command: str | Path) -> BaseProcess:
        said = self.said(int(environment["RANK"]))
        said.unlink(missing_ok=True)
        return start(
            run_script, self.place / "script.py", list(map(str, command)), environment, said
        )

    def said(self, rank: int) -> Path:
        """Return the path of what a process has said."""
        return self.place / f"said-{rank}"

    def finish(self, *arguments: str | Path) -> tuple[list[int | None], list[str]]:
        """Return the exit statuses and what was said of errors."""
        statuses = list(map(finish, self.start(*arguments)))
        said = "".join(self.said(rank).read_text() for rank in (0, 1))
        sys.stderr.write(said)  # shown if the test fails
        return statuses, [
            line for line in said.splitlines() if line.startswith(("daso:", "Traceback"))
        ]

    def finish_alone(self, *arguments: str | Path) -> int | None:
        """Train in one process; return its exit status."""
        command = ["train", "own.npz", "--out", self.place / "alone", *OPTIONS.split(), *arguments]
        return finish(self._start({"RANK": "0"}, *command))


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


SHORT = ["--network", "small-4", "--steps", "8"]


def test_other_images_or_another_version_on_one_machine_are_refused(machines: Machines) -> None:
    path = machines.place / "machine-1" / "own.npz"
    arrays = dict(np.load(path))
    arrays["test_images"][3, 2, 2] ^= 1
    np.savez(path, **arrays)
    statuses, [line] = machines.finish(*SHORT)
    assert statuses == [1, 1]
    assert "test images: " in line
    (machines.place / "machine-1" / "environment.json").write_text('{"DASO_AS_IF": "9.8.7"}')
    statuses, [line] = machines.finish(*SHORT)
    assert statuses == [1, 1]
    assert "daso: " in line
    assert "9.8.7 in process 1 on" in line
    assert not (machines.place / "run").exists()


def test_an_error_of_one_process_ends_all_with_one_message(machines: Machines) -> None:
    (machines.place / "machine-1" / "own.npz").write_bytes(b"PK damaged")
    statuses, [line] = machines.finish(*SHORT)
    assert statuses == [1, 1]
    assert line.startswith("daso: process 1 on ")
    assert "own.npz" in line


@pytest.mark.parametrize("late", [0, 1])
def test_an_error_of_all_is_told_once(machines: Machines, late: int) -> None:
    (machines.place / f"machine-{late}" / "environment.json").write_text('{"DASO_LATE": "2"}')
    statuses, [line] = machines.finish(*SHORT, "--weights", "nowhere.safetensors")
    assert statuses == [2, 2]
    assert "nowhere.safetensors" in line
    assert "process" not in line


@pytest.mark.parametrize(("failing", "late"), [("0", 0), ("1", 0), ("01", 1)])
def test_an_error_in_the_middle_of_a_training_is_told_once(
    machines: Machines, failing: str, late: int
) -> None:
    for rank in (0, 1):
        variables = {"DASO_FULL": "1"} if str(rank) in failing else {}
        variables |= {"DASO_LATE": "1"} if rank == late else {}
        (machines.place / f"machine-{rank}" / "environment.json").write_text(json.dumps(variables))
    statuses, [line] = machines.finish(*SHORT)
    assert statuses == [1, 1]
    assert line.startswith("daso: process ")
    assert line.endswith("cannot write metrics.jsonl: No space left on device")


@pytest.mark.parametrize("killed", [0, 1])
def test_nobody_waits_for_a_process_that_was_killed(machines: Machines, killed: int) -> None:
    running = machines.start("--network", "small-4", "--steps", "1000000")
    while not (machines.place / "run" / "metrics.jsonl").exists():
        assert [process.exitcode for process in running] == [None, None]
        time.sleep(0.05)
    running[killed].kill()
    assert finish(running[1 - killed]) == 1
    said = machines.said(1 - killed).read_text()
    assert "was killed" in said
    assert "Traceback" not in said


def final(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(max((folder / "checkpoints").glob("*.safetensors")))


def assert_as_one_process(
    machines: Machines,
    *arguments: str | Path,
    shared_only: tuple[str, ...] = (),
    rtol: float = 1e-8,
    atol: float = 1e-10,
) -> None:
    statuses, lines = machines.finish(*SHORT, *arguments, *shared_only)
    assert (statuses, lines) == ([0, 0], [])
    shared = final(machines.place / "run")
    assert machines.finish_alone(*SHORT, *arguments) == 0
    alone = final(machines.place / "alone")
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        torch.testing.assert_close(value, shared[name], rtol=rtol, atol=atol, msg=name)
    row = json.loads((machines.place / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 8


def test_a_compiled_step_is_shared_as_a_plain_one_of_one_process(machines: Machines) -> None:
    # Compiled graphs keep some intermediate values in float32.
    assert_as_one_process(machines, shared_only=("--compile",), rtol=2e-3, atol=2e-4)


def test_the_first_process_embeds_and_the_others_read(machines: Machines) -> None:
    weights = machines.place / "weights.safetensors"
    torch.manual_seed(0)
    encoder = build_encoder("small-4", 1, 8)
    assert isinstance(encoder, torch.nn.Module)
    safetensors.torch.save_file(encoder.state_dict(), weights)
    frozen = ["--weights", weights, "--freeze", "--embedding-folder", machines.place / "embeddings"]
    assert_as_one_process(machines, *frozen)
    counts = [int((machines.place / f"machine-{rank}" / "computed").read_text()) for rank in (0, 1)]
    assert counts == [0, 0]  # of the single process, which came last, and of the second one
    (machines.place / "full").write_text("a file")
    shutil.rmtree(machines.place / "run")
    statuses, [line] = machines.finish(*SHORT, *frozen[:-1], machines.place / "full")
    assert statuses == [1, 1]
    assert line.startswith("daso: process 0 on ")
    assert "cannot" in line
