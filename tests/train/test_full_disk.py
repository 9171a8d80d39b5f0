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
from pathlib import Path
from typing import Any

import killed_runs
import pytest
from forked import finish, start
from safetensors.torch import load_file

from daso.cli import main
from daso.data.source import Source
from daso.errors import RunError
from daso.files import read_json, read_rows, to_line
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run

MakeConfig = Callable[..., RunConfig]
LINE = "--method supervised --network small-8 --steps 20 --batch 8 --evaluate-every 5 --log-every 2 --device cpu"
OPTIONS = LINE.split()


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


def limited_train(words: list[str], errors: Path) -> None:
    """Train where no file may grow beyond 20 KB: a state has more, and the system says so, into a file."""
    sys.stderr = errors.open("w")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    killed_runs.command(words)


def test_a_checkpoint_that_the_system_does_not_let_grow(tmp_path: Path) -> None:
    folder, errors = tmp_path / "run", tmp_path / "errors.txt"
    assert (
        finish(start(limited_train, ["train", "digits", *OPTIONS, "--out", str(folder)], errors))
        == 1
    )
    assert "File too large" in errors.read_text()
    assert list((folder / "checkpoints").iterdir()) == []
    assert finish(start(killed_runs.command, ["resume", str(folder)])) == 0
    assert read_json(folder / "summary.json")["steps"] == 20


IN_A_SMALL_DISK = """
import os, subprocess, sys
disk, copy, *options = sys.argv[1:]

def mount(*words):
    if subprocess.run(["mount", *words, disk]).returncode:
        sys.exit(77)

mount("-t", "tmpfs", "-o", "size=150k", "tmpfs")
import daso.cli.training.session, daso.report.figures.draw
daso.report.figures.draw.draw_run = lambda folder: []
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
    command = [sys.executable, "-c", IN_A_SMALL_DISK, str(disk), str(copy), *OPTIONS]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", *command],
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
    full = (
        "import resource, sys, daso.cli.training.session\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "sys.exit(daso.cli.main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        full,
        "train",
        "digits",
        *OPTIONS,
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(
        r"^daso: cannot write .*environment\.json: File too large$", done.stderr, re.MULTILINE
    )
