"""Small pictures of images for a report, as encoded files within a budget."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from daso.data.images.decode import decode
from daso.data.images.pool import Pool
from daso.errors import DataError

SIDE = 64
"""Of a thumbnail in pixels, at most."""
LOSSLESS = 32
MOST = 1600
MOST_BYTES = 5_000_000


def encode_thumbnail(image: Tensor) -> bytes:
    """Return an image, uint8 (C, H, W) with C = 1 or 3, of at most 64 pixels a side as a PNG or a JPEG file.

    Up to 32 pixels it is kept as it is, as PNG; larger ones are shrunk with antialiasing to JPEG.
    """
    pixels = image.cpu().numpy().transpose(1, 2, 0)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        picture.save(file, "JPEG", quality=82, subsampling=0, optimize=True)
    return file.getvalue()


def _thumbnail(pool: Pool, index: int) -> bytes | None:
    """Return the picture of an image, or of the file that a vector stands for; None where there is none."""
    if pool.images.dim() == 4:
        return encode_thumbnail(pool.images[index])
    try:
        return encode_thumbnail(torch.tensor(decode(Path(pool.paths[index]), size=SIDE)))
    except (DataError, OSError, IndexError):
        return None


def pack_thumbnails(
    wanted: Sequence[tuple[int, Pool, npt.NDArray[np.integer]]],
) -> dict[str, npt.NDArray[np.generic]]:
    """Encode images of pools, in order, as long as they fit the budget.

    Vectors that stand for images that were read from files get the pictures of these files, as far as they are there.

    Args:
        wanted: number of a pool, the pool, and the numbers of its images.

    Returns:
        ``bytes`` uint8, the files one after the other; ``offsets`` int64 (T + 1,); ``pool`` int8 (T,); ``index``
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
