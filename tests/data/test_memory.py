"""What the system says of its memory, told by files of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from daso.data.images import memory
from daso.data.images.memory import available_memory


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUP_LIMITS", (tmp_path / "memory.max",))
    return tmp_path


def test_the_smaller_of_free_memory_and_a_containers_limit(files: Path) -> None:
    (files / "meminfo").write_text(
        "MemTotal:  9000 kB\nMemFree:  1000 kB\nMemAvailable:  3000 kB\n"
    )
    assert available_memory() == 3000 * 1024
    (files / "memory.max").write_text("2048\n")
    assert available_memory() == 2048
    (files / "memory.max").write_text("max\n")
    assert available_memory() == 3000 * 1024


def test_without_that_file_the_system_is_asked(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"SC_AVPHYS_PAGES": 5, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", answers.__getitem__, raising=False)
    assert available_memory() == 5 * 4096
    for content in ("", "MemAvailable: much", "MemAvailable:"):
        (files / "meminfo").write_text(content)
        assert available_memory() == 5 * 4096


def test_where_nothing_is_said_nothing_is_known(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", refuse, raising=False)
    assert available_memory() is None
    monkeypatch.delattr("os.sysconf")
    assert available_memory() is None


def test_of_this_machine() -> None:
    known = available_memory()
    assert known is None or known > 2**20
