"""The commit that a run notes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from daso.train.folder import environment

COMMIT = environment._commit  # other tests do without


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_asking_for_the_commit_leaves_the_repository_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr(environment, "__file__", str(module))
    commit = git("rev-parse", "--short=12", "HEAD")
    assert COMMIT() == commit
    module.write_text("two = 2\n")
    assert COMMIT() == f"{commit}-dirty"
    assert index.read_bytes() == before
