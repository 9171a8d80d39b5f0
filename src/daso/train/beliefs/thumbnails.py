"""Encode thumbnails for a report within a budget."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from daso.data.images.decode import decode, to_picture
from daso.data.images.pool import Pool
from daso.errors import DataError

SIDE = 64
"""Largest side of a thumbnail in pixels."""
LOSSLESS = 32
"""Side in pixels up to which thumbnails are PNG files."""
MOST = 1600
MOST_BYTES = 5_000_000


def encode_thumbnail(image: Tensor) -> bytes:
    """Encode an image, uint8 (C, H, W) with C = 1 or 3: PNG up to 32 pixels, else JPEG up to 64."""
    picture = to_picture(image.cpu().numpy())
    file = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        picture.save(file, "JPEG", quality=82, subsampling=0, optimize=True)
    return file.getvalue()


def _thumbnail(pool: Pool, index: int) -> bytes | None:
    """Return the thumbnail of an image, or of the file behind a vector; None without one."""
    if pool.images.dim() == 4:
        return encode_thumbnail(pool.images[index])
    try:
        return encode_thumbnail(torch.tensor(decode(Path(pool.paths[index]), size=SIDE)))
    except (DataError, OSError, IndexError):
        return None


def pack_thumbnails(
    wanted: Sequence[tuple[int, Pool, npt.NDArray[np.integer]]],
) -> dict[str, npt.NDArray[np.generic]]:
    """Encode images of pools, in order, while they fit the budget.

    Vectors get the thumbnails of the files that their images were read from, if these still exist.

    Args:
        wanted: number of a pool, the pool, and indices of its images.

    Returns:
        ``bytes`` uint8, the files joined; ``offsets`` int64 (T + 1,); ``pool`` int8 (T,); ``index``
            int32 (T,).
    """
    files: list[bytes] = []
    owners: list[tuple[int, int]] = []
    size = 0
    for number, pool, indices in wanted:
        for index in map(int, indices):
            file = _thumbnail(pool, index)
            if file is None:
                continue
            if len(files) >= MOST or size + len(file) > MOST_BYTES:
                break
            files.append(file)
            owners.append((number, index))
            size += len(file)
    pools, places = np.array(owners, dtype=np.int64).reshape(-1, 2).T
    return {
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)], dtype=np.int64),
        "pool": pools.astype(np.int8),
        "index": places.astype(np.int32),
    }
