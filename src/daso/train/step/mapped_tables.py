"""Tables with a row for each unlabeled image, kept in files where the images are in a file."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from daso.data.images.pool import FileRows
from daso.data.training_data import TrainingData
from daso.errors import RunError
from daso.parts import NewTable


def tables_of(data: TrainingData) -> NewTable:
    """Return the function that creates tables for the unlabeled pool.

    Images that exceed the memory are read from a file. Their tables are mapped from files beside
    it, so the operating system can write pages out. On an accelerator, tables are in its memory.
    """
    if data.unlabeled is None or not isinstance(data.unlabeled.images, FileRows):
        return torch.empty
    images = data.unlabeled.images
    return torch.empty if images.device.type != "cpu" else partial(mapped_table, images.folder)


def mapped_table(
    folder: Path, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a zero tensor that is mapped from an unnamed file, which vanishes with the tensor.

    Raises:
        RunError: the disk is full.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    place = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            # Allocated at once: a disk that fills up later would kill the process at a page fault.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            else:
                file.truncate(max(1, size))
            content = np.memmap(file, np.uint8, "r+", shape=(max(1, size),))
    except OSError as error:
        raise RunError(
            f"{place} has no room for a table of {size / 1e9:.1f} GB with a row for each unlabeled "
            f"image ({error.strerror or error}); move --cache, or use a method without such a "
            f"table (fixmatch+daso)"
        ) from error
    return torch.from_numpy(content)[:size].view(dtype).view(shape)
