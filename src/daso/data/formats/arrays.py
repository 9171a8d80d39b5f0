"""Data sets that are already arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from daso.data.check.finding import listed
from daso.data.source import UNLABELED, Images, Source
from daso.errors import DataError

CHUNK = 1024


def from_arrays(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    unlabeled: npt.ArrayLike | None = None,
    validation_images: npt.ArrayLike | None = None,
    validation_labels: npt.ArrayLike | None = None,
    test_images: npt.ArrayLike | None = None,
    test_labels: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    flip: bool = True,
) -> Source:
    """Make a ``Source`` of arrays.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; uint8, or floats from 0 to 1.
        labels: integers (N,) or (N, 1), 0 <= label < K; images labelled -1 join the unlabelled pool.
        unlabeled: further images whose class is unknown.
        validation_images, validation_labels, test_images, test_labels: hold-outs, all labels known.
        class_names: the K names; None: "0" to the largest label.
        name: how run folders call the data.
        flip: whether a mirrored image keeps its class.

    Raises:
        DataError: shapes, types, values or labels are none of these, or a class has no labelled image.
    """
    pixels, targets = as_images(images, "images"), as_labels(labels, "labels")
    _agree(pixels, targets, "images", "labels")
    validation = _held_out(validation_images, validation_labels, "validation")
    test = _held_out(test_images, test_labels, "test")
    names = _class_names(
        class_names, [targets, *(pool.labels for pool in (validation, test) if pool)]
    )
    known = targets != UNLABELED
    _check_labels(targets, names, "labels")
    for part, pool in (("validation_labels", validation), ("test_labels", test)):
        if pool is not None:
            _check_labels(pool.labels, names, part)
    counts = np.bincount(targets[known], minlength=len(names))
    empty = [names[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(f"labels: no labelled image of class {listed(empty)}; label some of each")
    pool_without = [] if known.all() else [pixels[~known]]
    if unlabeled is not None:
        pool_without.append(as_images(unlabeled, "unlabeled"))
        if pool_without[-1].shape[1:] != pixels.shape[1:]:
            raise DataError(
                f"unlabeled images are {pool_without[-1].shape[1:]}, images {pixels.shape[1:]}; "
                "they must agree"
            )
    without = np.concatenate(pool_without) if pool_without else None
    return Source(
        name=name,
        class_names=names,
        train=Images(pixels, targets) if known.all() else Images(pixels[known], targets[known]),
        unlabeled=None
        if without is None or not len(without)
        else Images(without, np.full(len(without), UNLABELED, dtype=np.int64)),
        validation=validation,
        test=test,
        flip=flip,
    )


def as_images(values: npt.ArrayLike, what: str) -> npt.NDArray[np.uint8]:
    """Bring images to uint8 (N, C, H, W); *what* names them in errors.

    Raises:
        DataError: the shape or type is not an image's, or a float is no number from 0 to 1.
    """
    array = np.asarray(values)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = _channels_first(array, what)
    else:
        vectors = (
            "; vectors are for daso.DASOClassifier, see docs/estimator.md"
            if array.ndim == 2
            else ""
        )
        raise DataError(
            f"{what} must be (N, H, W), (N, H, W, C) or (N, C, H, W), got {array.shape}{vectors}"
        )
    if not array[:1].size and len(array):
        raise DataError(f"{what} must not be empty, got {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise DataError(
            f"{what} must be uint8, or floats from 0 to 1, got {array.dtype}; convert them"
        )
    pixels = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), CHUNK):
        part = array[start : start + CHUNK].astype(np.float32)
        bad = np.flatnonzero(~((part >= 0) & (part <= 1)).all(axis=(1, 2, 3)))
        if len(bad):
            first = part[bad[0]]
            value = first[~((first >= 0) & (first <= 1))][0]
            raise DataError(
                f"{what}: image {start + bad[0]} has the value {value}; floats must be numbers from 0 to 1 "
                "(divide by the largest value, or give uint8)"
            )
        pixels[start : start + CHUNK] = np.rint(part * 255)
    return pixels


def as_labels(values: npt.ArrayLike, what: str) -> npt.NDArray[np.int64]:
    """Bring labels to int64 (N,); *what* names them in errors.

    Raises:
        DataError: they are not integers, or more than one to an image.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] > 1:
        raise DataError(
            f"{what} has {array.shape[1]} columns; each image must have one class: "
            "several labels to an image (and one-hot labels) are not supported"
        )
    if array.ndim == 2:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{what} must be of shape (N,), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise DataError(f"{what} must be integers, 0 to K - 1 or -1 for unknown, got {array.dtype}")
    return array.astype(np.int64)


def _channels_first(array: npt.NDArray[np.generic], what: str) -> npt.NDArray[np.generic]:
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first and last:
        raise DataError(
            f"{what}: {array.shape} may have its channels first or last; give larger images"
        )
    if not first and not last:
        raise DataError(
            f"{what} must have 1 (grey) or 3 (RGB) channels, first or last, got {array.shape}"
        )
    return array if first else array.transpose(0, 3, 1, 2)


def _agree(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], first: str, second: str
) -> None:
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"{len(images)} {first}, but {len(labels)} {second}; they must agree, and there must be some"
        )


def _held_out(
    images: npt.ArrayLike | None, labels: npt.ArrayLike | None, part: str
) -> Images | None:
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        raise DataError(f"{part}_images and {part}_labels go together; only one of them was given")
    pool = as_images(images, f"{part}_images"), as_labels(labels, f"{part}_labels")
    _agree(*pool, f"{part}_images", f"{part}_labels")
    unknown = np.flatnonzero(pool[1] == UNLABELED)
    if len(unknown):
        raise DataError(
            f"{part}_labels: -1 (unknown) at index {unknown[0]}; a hold-out needs every label"
        )
    return Images(*pool)


def _class_names(
    given: Sequence[str] | None, labels: list[npt.NDArray[np.int64]]
) -> tuple[str, ...]:
    if given is not None:
        names = tuple(str(item) for item in given)
        if len(set(names)) != len(names):
            raise DataError(f"class_names must be different, got {list(names)}")
        return names
    count = 1 + max(int(part.max()) for part in labels)
    images = sum(len(part) for part in labels)
    if count > images:
        raise DataError(
            f"the largest label is {count - 1}, with {images} images; number the classes 0, 1, 2 ..."
        )
    return tuple(str(label) for label in range(count))


def _check_labels(labels: npt.NDArray[np.int64], names: Sequence[str], what: str) -> None:
    bad = np.flatnonzero((labels < UNLABELED) | (labels >= len(names)))
    if len(bad):
        raise DataError(
            f"{what}: {labels[bad[0]]} at index {bad[0]} is out of range ({len(bad)} such); "
            f"labels must be 0 to {len(names) - 1}, or -1 for unknown"
        )
