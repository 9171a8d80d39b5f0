"""Checkpoints: a safetensors file and a JSON file beside it that vouches for it. No pickle.

The JSON is written last and holds the checksum, so a checkpoint that was cut off while being written never
counts; the two newest are kept, so there is always a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from daso.errors import RunError
from daso.files import save_json, write_atomically

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A saved state.

    Attributes:
        path: of its safetensors file.
        tensors: by name.
        step: training steps done.
        seconds: spent in training.
        configuration: fingerprint of the configuration that it belongs to.
        output: name of the head that classifies.
    """

    path: Path
    tensors: dict[str, Tensor]
    step: int
    seconds: float
    configuration: str
    output: str = "class"


def _tensor_files(folder: Path) -> list[Path]:
    """Return the tensor files of all checkpoints, whole or not, newest first."""
    return sorted(
        {path.with_suffix(".safetensors") for path in folder.glob("step-*.*")}, reverse=True
    )


def has_checkpoint(folder: Path) -> bool:
    """Tell whether there is any checkpoint in *folder*, whole or not; a first one that was never finished is none."""
    return len(_tensor_files(folder)) > 1 or any(folder.glob("step-*.json"))


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint that is vouched for, not checked; None if there is none."""
    names = [path.stem for path in folder.glob("step-*.json")]
    return max((int(name.partition("-")[2]) for name in names), default=None)


def save_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor],
    step: int,
    seconds: float,
    configuration: str = "",
    output: str = "class",
) -> Path:
    """Write a checkpoint and remove all but the two newest; what is of later steps was damaged, and goes too.

    Args:
        folder: made if it is not there.
        tensors: the state; copied to the host.
        step: training steps done.
        seconds: spent in training.
        configuration: fingerprint of the configuration that the state belongs to.
        output: name of the head that classifies.

    Returns:
        The path of the safetensors file.

    Raises:
        RunError: it cannot be written; older checkpoints stay.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}") from error
    path = folder / f"step-{step:09d}.safetensors"
    content = safetensors.torch.save(
        {name: value.cpu().contiguous() for name, value in tensors.items()}
    )
    write_atomically(path, content)
    checksum = hashlib.sha256(content).hexdigest()
    vouch = {
        "step": step,
        "seconds": seconds,
        "configuration": configuration,
        "output": output,
        "sha256": checksum,
    }
    save_json(path.with_suffix(".json"), vouch)
    files = _tensor_files(folder)
    at = files.index(path)
    for old in files[:at] + files[at + KEPT :]:
        # What cannot be removed now is tried again at the next checkpoint.
        with contextlib.suppress(OSError):
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
    return path


def drop_later(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps than *step*: a training that was taken back there will not know them."""
    for path in _tensor_files(folder):
        if int(path.stem.partition("-")[2]) > step:
            with contextlib.suppress(OSError):
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint:
    """Read the newest whole checkpoint of *folder*; *warn* is told of every damaged one that is passed over.

    Raises:
        RunError: there is none.
    """
    damaged = []
    for path in _tensor_files(folder):
        try:
            vouch = json.loads(path.with_suffix(".json").read_bytes())
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != vouch["sha256"]:
                raise ValueError("its checksum does not fit")
            if path.stem != f"step-{int(vouch['step']):09d}":
                raise ValueError(f"it says step {vouch['step']}")
            tensors = safetensors.torch.load(content)
            seconds, configuration = float(vouch["seconds"]), str(vouch["configuration"])
            output = str(vouch.get("output", "class"))
            return Checkpoint(path, tensors, int(vouch["step"]), seconds, configuration, output)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            damaged.append(f"{path.name}: {error}")
            warn(f"damaged checkpoint {path} is passed over ({error})")
    if damaged:
        raise RunError(f"every checkpoint in {folder} is damaged: {'; '.join(damaged)}")
    raise RunError(
        f"there is no checkpoint in {folder}: the run has not come to its first evaluation, which saves one"
    )
