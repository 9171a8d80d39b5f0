"""A disk that is full, a folder that is read-only: a clear error, nothing damaged, and the run goes on later."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from forked import PROCESSES, command, finish, start
from safetensors.torch import load_file

from daso.cli import main
from daso.data.source import Source
from daso.errors import RunError
from daso.files import read_json, read_rows, to_line
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run

MakeConfig = Callable[..., RunConfig]
LINE = "--method supervised --network small-8 --steps 20 --batch 8 --evaluate-every 5 --log-every 2"
OPTIONS = [*LINE.split(), "--device", "cpu", "--precision", "float32"]


class Disk:
    """Has so many bytes left for what is opened for writing while it is in place."""

    def __init__(self, left: float) -> None:
        self.left, self.written = left, 0
        self.begun: list[int] = []
        """How much had been written when each file was opened."""

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        plainly = Path.open
        disk = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                size = min(len(content), int(min(disk.left, 2**40)))
                if content and not size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                super().write(bytes(content)[:size])
                disk.left, disk.written = disk.left - size, disk.written + size
                return size

        def limited(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if mode not in ("wb", "ab"):
                return plainly(path, mode, *rest, **named)
            disk.begun.append(disk.written)
            return io.BufferedWriter(Raw(path, mode))

        patch.setattr(Path, "open", limited)


def comparable(folder: Path) -> list[str]:
    times = ("seconds", "steps_per_second")
    rows = read_rows(folder / "metrics.jsonl")
    return [
        to_line({name: value for name, value in row.items() if name not in times}) for row in rows
    ]


def test_a_disk_that_fills_up_in_the_middle_of_any_write(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("supervised", steps=8, evaluate_every=4, log_every=2)

    def train(folder: Path, left: float) -> Disk:
        disk = Disk(left)
        with monkeypatch.context() as patch:
            disk.put_in_place(patch)
            list(train_run(prepare(config, digits), folder))
        return disk

    undisturbed = tmp_path / "undisturbed"
    disk = train(undisturbed, float("inf"))
    expected = load_file(undisturbed / "checkpoints" / "step-000000008.safetensors")
    writes = [ends for ends in pairwise([*disk.begun, disk.written]) if ends[0] < ends[1]]
    assert len(writes) >= 15  # of what explains the run, its rows, its checkpoints and its end
    for left in [0, *((begin + end) // 2 for begin, end in writes)]:
        folder = tmp_path / str(left)
        with pytest.raises(RunError, match="No space left on device"):
            train(folder, left)
        assert not list(folder.rglob("*.tmp"))
        assert not (folder / "summary.json").exists()
        if (folder / "config.json").exists():
            list(resume_run(folder)[1])
        else:
            train(folder, float("inf"))
        assert comparable(folder) == comparable(undisturbed), f"{left} bytes"
        tensors = load_file(folder / "checkpoints" / "step-000000008.safetensors")
        assert all(tensors[name].equal(value) for name, value in expected.items())


def limited_train(folder: Path, size: int, errors: Connection) -> None:
    """Train where no file may grow beyond some bytes, and send what is said of it."""
    sys.stderr = io.StringIO()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        command(["train", "digits", *OPTIONS, "--out", folder])
    finally:
        errors.send(sys.stderr.getvalue())


def errors_of_limited_train(folder: Path, size: int) -> str:
    here, there = PROCESSES.Pipe()
    process = start(limited_train, folder, size, there)
    there.close()
    said: str = here.recv()
    assert finish(process) == 1
    assert "Traceback" not in said
    return said


def test_a_checkpoint_that_the_system_does_not_let_grow(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # A state has more than 20 KB.
    assert "File too large" in errors_of_limited_train(folder, 20_000)
    assert list((folder / "checkpoints").iterdir()) == []
    assert finish(start(command, ["resume", folder])) == 0
    assert read_json(folder / "summary.json")["steps"] == 20


IN_A_SMALL_DISK = """
import os, subprocess, sys
disk, copy, *options = sys.argv[1:]

def mount(*words):
    if subprocess.run(["mount", *words, disk]).returncode:
        sys.exit(77)

mount("-t", "tmpfs", "-o", "size=150k", "tmpfs")
import daso.cli, types
sys.modules["daso.report.figures.draw"] = types.SimpleNamespace(draw_run=lambda folder: [])
run = os.path.join(disk, "run")
ends = [daso.cli.main(["train", "digits", *options, "--out", run])]
mount("-o", "remount,ro")
ends.append(daso.cli.main(["resume", run]))
mount("-o", "remount,rw,size=100m")
ends.append(daso.cli.main(["resume", run]))
subprocess.run(["cp", "-r", run, copy], check=True)
print(*ends)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount of its own")
def test_a_real_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    words = [sys.executable, "-c", IN_A_SMALL_DISK, str(disk), str(copy), *OPTIONS]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr[:100]}")
    assert done.stdout.endswith("1 1 0\n"), done.stderr
    assert "No space left on device" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    undisturbed = tmp_path / "undisturbed"
    assert main(["train", "digits", *OPTIONS, "--out", str(undisturbed)]) == 0
    assert comparable(copy) == comparable(undisturbed)


def test_pictures_that_do_not_fit_cost_only_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path) -> None:
        raise RunError(f"cannot write into {folder / 'plots'}: No space left on device")

    monkeypatch.setattr("daso.report.figures.draw.draw_run", full)
    assert main(["train", "digits", *OPTIONS, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert "no plots: cannot write" in printed.err
    assert "20 steps in" in printed.out


def test_a_disk_that_is_full_from_the_start(tmp_path: Path) -> None:
    said = errors_of_limited_train(tmp_path / "run", 0)
    assert re.search(
        r"^daso: cannot write .*environment\.json: File too large$", said, re.MULTILINE
    )
