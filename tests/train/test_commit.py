"""The commit that a run notes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from daso.train.folder import environment
environment.__file__ = sys.argv[1]
print(environment._commit())
open(sys.argv[1], "a").write("two = 2")
print(environment._commit())
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_asking_for_the_commit_leaves_the_repository_alone(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-C", str(tmp_path)]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    module, index = tmp_path / "module.py", tmp_path / ".git" / "index"
    module.write_text("one = 1\n")
    for words in (("init",), ("add", "module.py"), ("commit", "-m", "one")):
        git(*words)
    os.utime(
        module, (1, 1)
    )  # the same content: git would note in its index, under a lock, that it has looked
    before = index.read_bytes()
    command = [sys.executable, "-c", CODE, str(module)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [
        (commit := git("rev-parse", "--short=12", "HEAD")),
        f"{commit}-dirty",
    ]
    assert index.read_bytes() == before
