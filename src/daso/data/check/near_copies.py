"""Find images that look alike (resaved, resized, brightened) in time linear in their number."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.images.decode import to_picture

NEAR_BITS = 6
"""Bits of 63 in which the hashes of near copies may differ."""
NEAR_CORRELATION = 0.99
"""Least correlation of the thumbnails of near copies."""
HASHED_SIDE, THUMBNAIL_SIDE = 32, 16
BLOCKS = 8
"""Blocks of a hash; hashes that differ in 6 bits agree in at least two of them."""
NEIGHBORS = 64
"""Following images, in the order of hashes, with which an image is compared."""
FLAT = 4.0
"""Gray levels; thumbnails with a smaller deviation have too little contrast to compare."""
CHUNK = 4096
"""Thumbnails, or pairs of them, compared at a time."""

_k = np.arange(HASHED_SIDE)
_COSINES = np.cos(np.pi * (2 * _k[None] + 1) * _k[:8, None] / (2 * HASHED_SIDE))
_POWERS = (np.uint64(1) << np.arange(63, dtype=np.uint64))[None]


def thumbnail(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
    """Return an image's thumbnail, uint8 (16, 16, 3), and its perceptual hash of 63 bits.

    A bit of the hash says whether one of the 8 x 8 lowest cosine waves of the gray image, without
    the constant one, is stronger than the median wave. *pixels* are uint8 (C, H, W).
    """
    image = to_picture(pixels)
    small = image.convert("RGB").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    grey = image.convert("L").resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.BILINEAR)
    waves = (_COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T).ravel()[1:]
    # Without rounding, arithmetic noise around zero would decide a bit.
    waves = np.round(waves, 6)
    value = int(((waves > np.median(waves)) * _POWERS[0]).sum(dtype=np.uint64))
    return np.asarray(small, dtype=np.uint8), value


def near_pairs(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """Return pairs of near copies: hashes within 6 of 63 bits, thumbnails with correlation 0.99.

    Such hashes agree in at least two of eight blocks, so only images that do are compared. For each
    of the 28 pairs of blocks the images are sorted by them, and each is compared with at most the
    next 64 that agree. If more than 64 images agree, some pairs are missed.

    Args:
        hashes, thumbnails: uint64 (N,) and uint8 (N, 16, 16, 3), of ``thumbnail``.

    Returns:
        int64 (P, 2), pairs (i, j) with i < j, in ascending order.
    """
    count = len(hashes)
    # Pair (i, j) is stored as i * N + j: a burst of one scene has hundreds of pairs per image.
    pairs = np.empty(0, dtype=np.int64)
    bounds = [round(63 * block / BLOCKS) for block in range(BLOCKS + 1)]
    masks = [(1 << last) - (1 << first) for first, last in itertools.pairwise(bounds)]
    for first, second in itertools.combinations(masks, 2):
        keys = hashes & np.uint64(first | second)
        order = np.lexsort((hashes, keys))
        keys, values = keys[order], hashes[order]
        found = [pairs]
        for offset in range(1, min(NEIGHBORS, count - 1) + 1):
            agree = np.flatnonzero(keys[:-offset] == keys[offset:])
            if not len(agree):
                break
            distances = np.bitwise_count(values[agree] ^ values[agree + offset])
            close = agree[distances <= NEAR_BITS]
            one, other = order[close], order[close + offset]
            found.append(np.minimum(one, other) * count + np.maximum(one, other))
        # Faster than np.unique, which hashes integers.
        pairs = np.sort(np.concatenate(found))
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    both = np.stack([pairs // max(count, 1), pairs % max(count, 1)], 1)
    means, deviations = _moments(thumbnails)
    near = np.zeros(len(both), dtype=bool)
    for start in range(0, len(both), CHUNK):
        i, j = both[start : start + CHUNK].T
        flat = (thumbnails[k].reshape(len(k), -1) - means[k, None] for k in (i, j))
        covariance = np.einsum("nd,nd->n", *flat) / thumbnails[0].size
        near[start : start + CHUNK] = covariance >= NEAR_CORRELATION * deviations[i] * deviations[j]
    return both[near]


def _moments(
    thumbnails: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return each thumbnail's mean and standard deviation, at least ``FLAT``, float32 (N,)."""
    means, deviations = np.zeros((2, len(thumbnails)), dtype=np.float32)
    for start in range(0, len(thumbnails), CHUNK):
        some = slice(start, start + CHUNK)
        flat = thumbnails[some].reshape(len(thumbnails[some]), -1)
        means[some], deviations[some] = flat.mean(1), np.maximum(flat.std(1), FLAT)
    return means, deviations
