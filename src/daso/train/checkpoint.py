"""Checkpoints: a safetensors file and a JSON file beside it that vouches for it. No pickle.

The JSON is written last and holds the checksum, so a checkpoint that was cut off while being written never
counts; the two newest are kept, so there is always a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from daso.errors import RunError

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: its tensors by name, and the step, seconds and configuration that it belongs to."""

    path: Path
    tensors: dict[str, Tensor]
    step: int
    seconds: float


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content is there, on disk.

    Raises:
        RunError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def save_json(path: Path, value: Any) -> None:
    """Write *value* as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], step: int, seconds: float) -> Path:
    """Write a checkpoint into *folder* and remove all but the two newest.

    Args:
        folder: made if it is not there.
        tensors: the state; copied to the host.
        step: training steps done.
        seconds: spent in training.

    Returns:
        The path of the safetensors file.

    Raises:
        RunError: it cannot be written; older checkpoints stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.safetensors"
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()})
    write_atomically(path, content)
    vouch = {"step": step, "seconds": seconds, "sha256": hashlib.sha256(content).hexdigest()}
    save_json(path.with_suffix(".json"), vouch)
    for old in _vouchers(folder)[KEPT:]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path


def _vouchers(folder: Path) -> list[Path]:
    """Return the JSON files of the checkpoints, newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint:
    """Read the newest whole checkpoint of *folder*; *warn* is told of every damaged one that is passed over.

    Raises:
        RunError: there is none.
    """
    damaged = []
    for voucher in _vouchers(folder):
        path = voucher.with_suffix(".safetensors")
        try:
            vouch = json.loads(voucher.read_bytes())
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != vouch["sha256"]:
                raise ValueError("its checksum does not fit")
            tensors = safetensors.torch.load(content)
            return Checkpoint(path, tensors, int(vouch["step"]), float(vouch["seconds"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damaged.append(f"{path.name}: {error}")
            warn(f"damaged checkpoint {path} is passed over ({error})")
    if damaged:
        raise RunError(f"every checkpoint in {folder} is damaged: {'; '.join(damaged)}")
    raise RunError(f"there is no checkpoint in {folder}: the run stopped before its first evaluation")
