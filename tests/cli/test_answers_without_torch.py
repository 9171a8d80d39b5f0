"""What is loaded when: help and wrong options are answered before torch, which takes seconds, is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from daso.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
sys.exit(99 if "torch" in sys.modules else status)
"""


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("train --help", 0, "--dist-temperature"),
        ("train --help --method fixmatch+darp", 0, "--darp-period"),
        ("train digits --stepss 10", 2, "--steps"),
        ("train digits --precision bf16", 2, "'bfloat16'"),
        ("train digits --steps many", 2, "--steps"),
        ("predict --help", 0, "--unsure"),
        ("predict . image.png --probabilites", 2, "--probabilities"),
        ("export --help", 0, "safetensors"),
        ("validate --help", 0, "--folds"),
        ("reproduce --help", 0, "--engine"),
        ("reproduce 1 --seeds one", 2, "--seeds"),
        ("data check --help", 0, "--json"),
    ],
)
def test_help_and_wrong_options_need_no_torch(
    line: str, status: int, said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CODE, *line.split()]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == status, result.stderr
    assert said in result.stdout + result.stderr


def test_a_training_starts_without_what_only_its_end_needs() -> None:
    code = (
        "import sys, daso.cli.verbs.train, daso.cli.training.session\n"
        "print(*sorted({'matplotlib', 'scipy', 'pandas', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
