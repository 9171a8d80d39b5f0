"""Checkpoints: whole, vouched for, two of them, or a clear error."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from daso.errors import RunError
from daso.files import save_json, write_atomically
from daso.train.folder import checkpoint as checkpoints
from daso.train.folder.checkpoint import load_checkpoint, save_checkpoint


def state(value: int) -> dict[str, Tensor]:
    return {
        "weights": torch.full((3, 4), float(value)).contiguous(),
        "seen": torch.tensor([value, 2**40], dtype=torch.int64),
        "step": torch.tensor(value),
        "mask": torch.tensor([True, False]),
    }


def saved(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, state(step), step, seconds=step / 2)


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def voucher(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.with_suffix(".json").write_bytes(content)


def damage_voucher_step(path: Path) -> None:
    text = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(text.replace('"step": 15', '"step": 14'))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit": damage_flip,
    "truncated": damage_truncate,
    "empty": damage_empty,
    "removed": Path.unlink,
    "voucher removed": lambda path: path.with_suffix(".json").unlink(),
    "voucher garbage": voucher(b"\xff\x00 no JSON {"),
    "voucher empty": voucher(b""),
    "voucher a list": voucher(b"[1, 2]"),
    "voucher without checksum": voucher(b'{"step": 15, "seconds": 1}'),
    "voucher of another step": damage_voucher_step,
}


def test_a_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    tensors = state(7) | {
        "across": torch.arange(12.0).view(3, 4).T,
        "channels_last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
    }
    warnings: list[str] = []
    path = save_checkpoint(tmp_path / "new" / "folder", tensors, 7, 1.25)
    loaded = load_checkpoint(tmp_path / "new" / "folder", warnings.append)
    assert (loaded.path, loaded.step, loaded.seconds, warnings) == (path, 7, 1.25, [])
    assert loaded.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        own = loaded.tensors[name]
        assert own.dtype == value.dtype
        assert (
            own.contiguous().view(torch.uint8).equal(value.contiguous().view(torch.uint8))
            if value.dim()
            else (own.equal(value))
        )


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 1000, 2_000_000_000):
        saved(tmp_path, step)
        assert load_checkpoint(tmp_path, pytest.fail).step == step
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000001000.json",
        "step-000001000.safetensors",
        "step-2000000000.json",
        "step-2000000000.safetensors",
    ]


def test_no_pickle(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    length = int.from_bytes((tmp_path / "step-000000005.safetensors").read_bytes()[:8], "little")
    header = (tmp_path / "step-000000005.safetensors").read_bytes()[8 : 8 + length]
    assert {"weights", "seen", "step", "mask"} <= set(json.loads(header))


def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_replaced(tmp_path: Path) -> None:
    for name, damage in DAMAGES.items():
        folder, warnings = tmp_path / name, list[str]()
        saved(folder, 10, 15)
        damage(folder / "step-000000015.safetensors")
        loaded = load_checkpoint(folder, warnings.append)
        assert loaded.step == 10, name
        assert torch.equal(loaded.tensors["weights"], state(10)["weights"]), name
        assert len(warnings) == 1, name
        assert "step-000000015" in warnings[0]
        saved(folder, 15)
        assert load_checkpoint(folder, pytest.fail).step == 15, name


def test_damaged_checkpoints_of_later_steps_do_not_crowd_out_whole_ones(tmp_path: Path) -> None:
    saved(tmp_path, 10, 15)
    for damage in (damage_flip, voucher(b"")):
        damage(tmp_path / "step-000000015.safetensors")
    for step in (11, 12, 13):  # as a run goes on that was resumed from step 10
        saved(tmp_path, step)
        assert load_checkpoint(tmp_path, pytest.fail).step == step
    names = {path.stem for path in tmp_path.iterdir()}
    assert names == {"step-000000012", "step-000000013"}


def test_all_damaged_is_an_error_that_names_them(tmp_path: Path) -> None:
    saved(tmp_path, 10, 15)
    damage_flip(tmp_path / "step-000000015.safetensors")
    damage_truncate(tmp_path / "step-000000010.safetensors")
    with pytest.raises(RunError, match=r"every checkpoint .* is damaged") as caught:
        load_checkpoint(tmp_path, lambda message: None)
    assert "step-000000015" in str(caught.value)
    assert "step-000000010" in str(caught.value)


def test_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    for folder in ("", "missing"):
        with pytest.raises(RunError, match="no checkpoint"):
            load_checkpoint(tmp_path / folder, pytest.fail)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_checkpoints_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    saved(tmp_path, 5, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full) if when == "fsync" else patch.setattr(
            Path, "replace", _full
        )
        with pytest.raises(RunError, match="No space left on device"):
            saved(tmp_path, 15)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert load_checkpoint(tmp_path, pytest.fail).step == 10


def test_a_disk_that_fills_up_before_the_voucher_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 5, 10)
    calls: list[int] = []

    def full_the_second_time(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            _full()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_the_second_time)
        with pytest.raises(RunError, match="No space left on device"):
            saved(tmp_path, 15)
    assert load_checkpoint(tmp_path, lambda message: None).step == 10
    assert not list(tmp_path.glob(".*"))
    saved(tmp_path, 15)
    assert load_checkpoint(tmp_path, pytest.fail).step == 15


def test_a_folder_that_cannot_be_made_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file stands in the way")
    with pytest.raises(RunError, match="cannot"):
        saved(tmp_path / "checkpoints", 5)


def refuse(path: Path, *_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_a_folder_that_cannot_be_written_is_a_run_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(RunError, match="Permission denied"):
            saved(tmp_path, 10)
    assert load_checkpoint(tmp_path, pytest.fail).step == 5


def test_an_old_checkpoint_that_cannot_be_removed_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 5, 10)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with contextlib.suppress(RunError):
            saved(tmp_path, 15)
    assert load_checkpoint(tmp_path, pytest.fail).step == 15


def test_an_interrupted_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "file").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_json_is_written_whole(tmp_path: Path) -> None:
    save_json(tmp_path / "a.json", {"b": [1, None], "c": "é"})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"b": [1, None], "c": "é"}
    assert checkpoints.KEPT == 2
