"""Tables with a row for each unlabelled image, in files where the images are in one."""

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
    """Return what makes such tables for a pool.

    Images that do not fit into the memory are read from a file; then tables are mapped from files beside it, whose
    pages the operating system writes out and forgets as it needs the room. On an accelerator they are in its memory.
    """
    if data.unlabeled is None or not isinstance(data.unlabeled.images, FileRows):
        return torch.empty
    images = data.unlabeled.images
    return torch.empty if images.device.type != "cpu" else partial(mapped_table, images.folder)


def mapped_table(
    folder: Path, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a tensor of zeros that is mapped from a file without a name: it goes with the tensor, or the process.

    Args:
        folder: on the disk that is wanted; if it cannot be written to, the folder for temporary files is used.
        shape: of the tensor.
        dtype: of its numbers.

    Raises:
        RunError: there is no room.
    """
    size = max(1, int(np.prod(shape)) * dtype.itemsize)
    place = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            # Room is taken at once: a disk that is full later would end the process when it touches a page.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            bytes_of_file = np.memmap(file, np.uint8, "r+", shape=(size,))
    except OSError as error:
        raise RunError(
            f"{place}: no room for a table of {size / 1e9:.1f} GB with a row for each unlabelled image "
            f"({error.strerror or error}). Put --cache elsewhere, or use a method that keeps none (fixmatch+daso)"
        ) from error
    return (
        torch.from_numpy(bytes_of_file)[: int(np.prod(shape)) * dtype.itemsize]
        .view(dtype)
        .view(shape)
    )
