"""Convert a PyTorch file to safetensors: ``python -m daso.nets.convert model.pth``.

PyTorch opens the file with its restricted unpickler, which builds only tensors and plain
containers. Convert only files that you trust: nothing else in daso opens a pickle.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from daso.errors import DasoError, OptionError, first_line
from daso.files import write_atomically

WITHIN = ("state_dict", "model", "model_state_dict", "teacher", "module")
"""Keys of a network's tensors in checkpoints, in order of preference."""


def convert(path: Path, out: Path | None = None) -> Path:
    """Write the tensors of a network, or of a checkpoint with a dictionary of them, as safetensors.

    A common prefix ``module.``, which training on several devices adds, is removed. The new file,
    whose path is returned, is *out*, or beside *path* with the ending ``.safetensors``.

    Raises:
        OptionError: the file cannot be read, or holds no tensors.
        RunError: the new file cannot be written.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise OptionError(f"cannot read tensors from {path}: {first_line(error)}") from error
    for key in WITHIN:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise OptionError(f"{path} holds {type(content).__name__}, not a dictionary of tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        names = ", ".join(map(repr, list(content)[:5]))
        raise OptionError(f"{path} holds no tensors by name; its keys are {names or 'none'}")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    plain = {n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    target = out or path.with_suffix(".safetensors")
    write_atomically(target, safetensors.torch.save(plain))
    return target


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m daso.nets.convert FILE [FILE.safetensors]")
    try:
        print(convert(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None))
    except DasoError as error:
        sys.exit(f"error: {error}")
