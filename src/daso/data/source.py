"""What every reader returns: decoded images, or feature vectors, with labels, in one layout, on the host."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from daso.data.images.image_file import ImageFile
from daso.errors import DataError

Decoded = npt.NDArray[np.uint8] | npt.NDArray[np.float32] | ImageFile

UNLABELED = -1
"""The label of an image whose class is unknown."""


@dataclass(frozen=True)
class Images:
    """A pool of images that have one size, or of feature vectors in their place.

    Attributes:
        images: uint8, (N, C, H, W), C = 1 (grey) or 3 (RGB), in memory or in a file; or vectors, float32, (N, V, D),
            where each comes in V versions, the first of them the plain one.
        labels: int64, (N,), 0 <= label < K, or -1 where the class is unknown.
        paths: for images read from files, the N paths as given; empty otherwise.

    Raises:
        DataError: the arrays' types or shapes are not these.
    """

    images: Decoded
    labels: npt.NDArray[np.int64]
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        dtype, shape = self.images.dtype, self.images.shape
        are_images = dtype == np.uint8 and len(shape) == 4 and shape[1] in (1, 3)
        are_vectors = dtype == np.float32 and len(shape) == 3 and shape[1] >= 1 and shape[2] >= 1
        if not are_images and not are_vectors:
            raise DataError(
                f"images must be uint8 of shape (N, 1 or 3, H, W), or vectors float32 of shape (N, V, D), "
                f"got {dtype} {shape}"
            )
        if are_vectors and not np.isfinite(vectors := np.asarray(self.images)).all():
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=(1, 2)))
            raise DataError(
                f"{len(bad)} vectors hold NaN or infinity, the first is number {bad[0]}; mend or leave them out"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise DataError(
                f"labels must be int64 of shape ({len(self.images)},), "
                f"got {self.labels.dtype} {self.labels.shape}"
            )
        if self.paths and len(self.paths) != len(self.images):
            raise DataError(f"{len(self.paths)} paths were given for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)


def select_images(images: Decoded, kept: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Decoded:
    """Return some of the images; of those in a file none is read."""
    return images.select(kept) if isinstance(images, ImageFile) else images[kept]


@dataclass(frozen=True)
class Source:
    """A data set as its reader found it, before any split.

    Attributes:
        name: how the source is called in a run folder, e.g. ``"cifar10"``.
        class_names: the K class names; a label indexes them.
        train: images with known labels (a folder's ``labeled/``); benchmark splits are drawn from them.
        unlabeled: the source's own unlabelled images (STL-10's, a folder's ``unlabeled/``), or None.
        validation: the source's own hold-out, or None.
        test: the source's own test set, or None.
        flip: whether a mirrored image keeps its class (not so for digits).
        mean, std: per channel, in [0, 1], the published normalisation; None: computed from the training pool.
        place: the file or folder that a named source was read from; None where there is none.
        skipped: what was left out, with the reason, where the caller asked to go on without it.
        notes: what a person should know of the data before training on it, a line each.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    unlabeled: Images | None = None
    validation: Images | None = None
    test: Images | None = None
    flip: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    place: str | None = None
    skipped: tuple[tuple[str, str], ...] = field(default=())
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise DataError(
                f"{self.name}: a classifier needs at least two classes, found {list(self.class_names)}"
            )
        for part in ("train", "unlabeled", "validation", "test"):
            pool: Images | None = getattr(self, part)
            if pool is None:
                continue
            if pool.images.shape[1:] != self.train.images.shape[1:]:
                what = (
                    "(channels, height, width)"
                    if self.train.images.ndim == 4
                    else "(versions, dimensions)"
                )
                raise DataError(
                    f"{self.name}: {part} images are {pool.images.shape[1:]}, "
                    f"train images {self.train.images.shape[1:]} {what}; they must agree"
                )
            least = UNLABELED if part == "unlabeled" else 0
            bad = np.flatnonzero((pool.labels < least) | (pool.labels >= len(self.class_names)))
            if len(bad):
                raise DataError(
                    f"{self.name}: {part} label {pool.labels[bad[0]]} at index {bad[0]} is out of range; "
                    f"labels must be 0 to {len(self.class_names) - 1}; -1, for unknown, is for unlabelled images "
                    f"only ({len(bad)} such labels)"
                )
