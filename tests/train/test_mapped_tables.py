"""Tables in files: what they are, what is left of them, and what is said where there is no room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from daso.errors import RunError
from daso.train.step.mapped_tables import mapped_table


def test_a_table_is_a_tensor_like_any_other(tmp_path: Path) -> None:
    for shape in ((7, 3), (5,), (0, 4)):
        for dtype in (torch.float32, torch.int64, torch.bool):
            table = mapped_table(tmp_path, shape, dtype=dtype)
            assert (table.shape, table.dtype) == (shape, dtype)
            assert not table.any()
            numbers = torch.arange(table.numel()).reshape(shape).to(dtype)
            table.copy_(numbers)
            if len(table):
                table[torch.tensor([1, 1])] = numbers[1]
            assert torch.equal(table, numbers)
            assert not list(tmp_path.iterdir())


def test_a_table_moved_to_its_own_device_is_not_copied(tmp_path: Path) -> None:
    module = torch.nn.Module()
    module.register_buffer("table", mapped_table(tmp_path, (4, 2)))
    place = module.table.data_ptr()
    module.to("cpu").load_state_dict({"table": torch.ones(4, 2)})
    assert module.table.data_ptr() == place
    assert module.table.sum() == 8


def test_no_room_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        RunError, match=r"no room for a table of 0\.1 GB .*No space left on device.*--cache"
    ):
        mapped_table(tmp_path, (10_000_000, 3))
    assert not list(tmp_path.iterdir())


def test_where_the_folder_cannot_be_written_to_another_is_used(tmp_path: Path) -> None:
    assert mapped_table(tmp_path / "nowhere", (3, 2)).shape == (3, 2)
