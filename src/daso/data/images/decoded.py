"""Decoded images on the host, all of one shape, in an array or a file."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daso.data.images.image_file import DIGEST_BYTES, ImageFile
from daso.errors import DataError

DARK = 65
"""Images of which no pixel is as bright are nearly black; 14 of 16 bits reach 64."""
CHUNK = 1024
Decoded = npt.NDArray[np.uint8] | npt.NDArray[np.float32] | ImageFile


@dataclass(frozen=True)
class DecodedImages:
    """N images of one size, or N feature vectors in their place, with their labels.

    Attributes:
        images: uint8, (N, C, H, W), C = 1 (gray) or 3 (RGB), in memory or in a file; or vectors,
            float32, (N, V, D), in V versions each, the plain one first. Read-only.
        labels: int64, (N,), 0 <= label < K, or -1 where the class is unknown.
        paths: the N paths of images that were read from files; otherwise empty.
        own: int64, (N,), see ``OwnLabels.rows``; None: no journal was applied.

    Raises:
        DataError: the types or shapes differ, or a vector is not finite.
    """

    images: Decoded
    labels: npt.NDArray[np.int64]
    paths: tuple[str, ...] = ()
    own: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        dtype, shape = self.images.dtype, self.images.shape
        are_images = dtype == np.uint8 and len(shape) == 4 and shape[1] in (1, 3)
        are_vectors = dtype == np.float32 and len(shape) == 3 and shape[1] >= 1 and shape[2] >= 1
        if not are_images and not are_vectors:
            raise DataError(
                "images must be uint8 of shape (N, 1 or 3, H, W), or vectors float32 of shape "
                f"(N, V, D), got {dtype} {shape}"
            )
        if are_vectors and not np.isfinite(vectors := np.asarray(self.images)).all():
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=(1, 2)))
            what = f"{len(bad)} vectors contain NaN or infinity, first at index {bad[0]}"
            raise DataError(f"{what}; correct or remove them")
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            got = f"{self.labels.dtype} {self.labels.shape}"
            raise DataError(f"labels must be int64 of shape ({len(self.images)},), got {got}")
        if self.paths and len(self.paths) != len(self.images):
            raise DataError(f"{len(self.paths)} paths for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    @functools.cached_property
    def digests(self) -> npt.NDArray[np.uint8]:
        """Digests of the images' pixels, uint8 (N, 16)."""
        if isinstance(self.images, ImageFile):
            return self.images.digests
        joined = b"".join(map(digest, self.images))
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, DIGEST_BYTES)

    def select(self, indices: npt.NDArray[np.int64]) -> DecodedImages:
        paths = tuple(self.paths[index] for index in indices) if self.paths else ()
        own = None if self.own is None else self.own[indices]
        chosen = DecodedImages(
            select_images(self.images, indices), self.labels[indices], paths, own
        )
        if "digests" in vars(self):
            vars(chosen)["digests"] = self.digests[indices]
        return chosen

    def followed_by(self, other: DecodedImages) -> DecodedImages:
        images = np.concatenate([np.asarray(self.images), np.asarray(other.images)])
        labels = np.concatenate([self.labels, other.labels])
        return DecodedImages(images, labels, self.paths + other.paths)


def unlabeled_images(images: Decoded) -> DecodedImages:
    """Return images with unknown classes."""
    return DecodedImages(images, np.full(len(images), -1, dtype=np.int64))


def digest(pixels: npt.NDArray[np.generic]) -> bytes:
    """Return 16 bytes that depend on the values of an array, not on its memory layout."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=DIGEST_BYTES).digest()


def select_images(images: Decoded, kept: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Decoded:
    """Return some of the images; images in a file are not read."""
    return images.select(kept) if isinstance(images, ImageFile) else images[kept]


def brightest(images: Decoded) -> int:
    """Return the largest value of some images, or one of ``DARK`` or more if there is any."""
    largest = 0
    for start in range(0, len(images), CHUNK):
        largest = max(largest, int(images[start : start + CHUNK].max()))
        if largest >= DARK:
            break
    return largest


def darkness(largest: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield text and cure for parts that are nearly black, by the largest value of each."""
    for part, value in largest.items():
        if value < DARK:
            what = f"the {'labeled' if part == 'train' else part} images are nearly black"
            yield (
                f"{what}: no pixel is above {value} of 255",
                "if their values fill a part of their range only, such as 12 of 16 bits or the "
                "numbers of a mask, scale them to the whole range",
            )
