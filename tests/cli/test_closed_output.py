"""Outputs that are closed, full, or whose reader ends early."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forked import command, finish, start

from daso.cli import main

TINY = "--network small-4 --steps 4 --batch 8 --evaluate-every 2 --device cpu"


@pytest.mark.parametrize("line", ["--help", "methods", "presets --json", "train digits --help"])
def test_a_reader_that_closes_before_the_end_is_no_error_to_speak_of(line: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "daso", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 1)


@pytest.mark.parametrize("line", ["--help", "methods", "presets --json", "--nothing"])
def test_a_closed_output_or_a_full_disk_is_no_fault_of_daso(line: str) -> None:
    daso = f"{shlex.quote(sys.executable)} -m daso {line}"
    for end in (">&-", ">&- 2>&-", "> /dev/full"):
        if "full" in end and not Path("/dev/full").exists():
            continue
        result = subprocess.run(
            ["sh", "-c", f"{daso} {end}"], capture_output=True, text=True, check=False
        )
        fails = line == "--nothing" or "full" in end
        assert bool(result.returncode) == fails
        assert "Traceback" not in result.stderr
        if "full" in end and line != "--nothing":
            assert "cannot write the output: No space left" in result.stderr


def test_a_reader_of_errors_that_closes_ends_a_training(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "said")
    train = ["train", "digits", *TINY.split(), "--out", tmp_path / "run"]
    process = start(command, train, tmp_path / "said")
    os.close(os.open(tmp_path / "said", os.O_RDONLY))  # waits until the command opens it, too
    assert finish(process) == 1
    assert not (tmp_path / "run" / "summary.json").exists()


def test_another_pipe_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError(32, "of a worker")

    monkeypatch.setattr("daso.cli.verbs.listings.methods.run", broken)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        main(["methods"])
    code = (
        "import sys, daso.cli.verbs.listings.methods\n"
        "def broken(arguments): raise BrokenPipeError(32, 'of a worker')\n"
        "daso.cli.verbs.listings.methods.run = broken\n"
        "sys.argv = ['daso', 'methods']\n"
        "sys.exit(daso.cli.main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("BrokenPipeError: [Errno 32] of a worker")
