"""Checkpoints: a safetensors file and a JSON file that vouches for it. No pickle.

The JSON file is written last and holds the checksum, so an interrupted checkpoint never counts. The
two newest checkpoints are kept: one of them is always complete.
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
from daso.files import make_folder, read_json, save_sealed, unseal, write_atomically

KEPT = 2
"""Checkpoints that are kept."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved state."""

    path: Path
    tensors: dict[str, Tensor]
    step: int
    seconds: float
    configuration: str
    output: str = "class"

    def average(self) -> dict[str, Tensor]:
        """Return the state of the moving-average network."""
        return without_prefix(self.tensors, "average.")


def without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with *prefix*, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _tensor_files(folder: Path) -> list[Path]:
    """Return the tensor files of all checkpoints, complete or not, newest first."""
    paths = {path.with_suffix(".safetensors") for path in folder.glob("step-*.*")}
    return sorted(paths, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _remove(path: Path) -> None:
    # Files that cannot be removed now are removed with a later checkpoint.
    with contextlib.suppress(OSError):
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    """Return whether *folder* has a checkpoint. An interrupted first checkpoint does not count."""
    return len(_tensor_files(folder)) > 1 or any(folder.glob("step-*.json"))


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest complete checkpoint, unverified; None without one."""
    return max(map(_step_of, folder.glob("step-*.json")), default=None)


def refuse_changed_configuration(run: Path, configuration: str, trained: str | None = None) -> None:
    """Refuse a configuration that is not the one of a run's checkpoints.

    Args:
        configuration: fingerprint of the one in ``config.json``.
        trained: that of a checkpoint; None: of the newest checkpoint, if it has one.

    Raises:
        RunError: ``config.json`` was changed.
    """
    if trained is None:
        newest = max((run / "checkpoints").glob("step-*.json"), default=None)
        trained = None if newest is None else read_json(newest).get("configuration")
    if trained not in (None, configuration):
        raise RunError(
            f"the checkpoint is of another configuration: {run / 'config.json'} was changed after "
            f"it; undo the change, or start a new run with 'daso train'"
        )


def save_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor],
    step: int,
    seconds: float,
    configuration: str = "",
    output: str = "class",
) -> Path:
    """Write a checkpoint; remove older ones but one, and damaged ones of later steps.

    Returns:
        The path of the safetensors file.

    Raises:
        RunError: the checkpoint cannot be written; older ones stay.
    """
    make_folder(folder)
    path = folder / f"step-{step:09d}.safetensors"
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    content = safetensors.torch.save(plain)
    write_atomically(path, content)
    vouch = {"step": step, "seconds": seconds, "configuration": configuration, "output": output}
    checksum = {"sha256": hashlib.sha256(content).hexdigest()}
    save_sealed(path.with_suffix(".json"), vouch | checksum)
    files = _tensor_files(folder)
    position = files.index(path)
    for old in files[:position] + files[position + KEPT :]:
        _remove(old)
    return path


def drop_later(folder: Path, step: int) -> None:
    """Remove the checkpoints of steps after *step*."""
    for path in _tensor_files(folder):
        if _step_of(path) > step:
            _remove(path)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint:
    """Read the newest complete checkpoint; report damaged ones through *warn* and skip them.

    Raises:
        RunError: every checkpoint is damaged or none exists.
    """
    damaged = []
    for path in _tensor_files(folder):
        try:
            vouch = unseal(json.loads(path.with_suffix(".json").read_bytes()))
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != vouch["sha256"]:
                raise ValueError("wrong checksum")
            if path.stem != f"step-{int(vouch['step']):09d}":
                raise ValueError(f"it says step {vouch['step']}")
            tensors = safetensors.torch.load(content)
            seconds, configuration = float(vouch["seconds"]), str(vouch["configuration"])
            output = str(vouch.get("output", "class"))
            return Checkpoint(path, tensors, int(vouch["step"]), seconds, configuration, output)
        except (
            OSError,
            ValueError,
            LookupError,
            AttributeError,
            TypeError,
            SafetensorError,
        ) as error:
            damaged.append(f"{path.name}: {error}")
            warn(f"damaged checkpoint {path} is skipped ({error})")
    if damaged:
        raise RunError(f"every checkpoint in {folder} is damaged: {'; '.join(damaged)}")
    raise RunError(
        f"there is no checkpoint in {folder}: the first evaluation of a run saves the first one"
    )
