"""What the system says of its memory, told by files of the test's own, and what fits into it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from label_sets import write_folder
from PIL import Image

from daso.data.images import memory
from daso.data.images.memory import available_memory
from daso.data.open import open_source
from daso.errors import DataError


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


def test_color_is_counted_where_a_size_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channels are not known before anything is decoded: the headers tell them."""
    images = write_folder(tmp_path / "color")
    count = sum(1 for _ in images.rglob("*.png"))
    gray = Path(shutil.copytree(images, tmp_path / "gray"))
    for file in gray.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * count * 8 * 8 - 1)
    with pytest.raises(DataError, match=f"{count} images of 8 x 8 pixels take"):
        open_source(str(images), size=8)
    assert open_source(str(gray), size=8).train.images.shape[1:] == (1, 8, 8)
    monkeypatch.setattr(memory, "available_memory", lambda: count * 8 * 8 - 1)
    with pytest.raises(DataError, match=f"{count} images of 8 x 8 pixels take"):
        open_source(str(gray), size=8)
