"""Arrays in memory as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.class_names import counted_from_zero, numbered_names, refuse_missing
from daso.data.images.decode import to_pixels
from daso.data.images.decoded import DecodedImages, unlabeled_images
from daso.data.source import UNLABELED, Source, check_labels, refuse_empty_classes, renumber_used
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
    partial: bool = False,
) -> Source:
    """Make a ``Source`` of arrays.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3; uint8, or floats from 0 to 1.
        labels: integers (N,) or (N, 1), 0 <= label < K; images labeled -1 become unlabeled.
        unlabeled: further images whose class is unknown.
        validation_images, validation_labels, test_images, test_labels: fully labeled hold-outs.
        class_names: the K names; None: the numbers. Without names labels may be 1 to K, too. Names
            without an image in any part are left out, with a note.
        name: of the data in run folders.
        flip: whether a mirrored image keeps its class.
        partial: see ``Listing.partial``.

    Raises:
        DataError: a shape, type, value or label is invalid, or a class has no labeled image.
    """
    given = {
        "train": ("", images, labels),
        "validation": ("validation_", validation_images, validation_labels),
        "test": ("test_", test_images, test_labels),
    }
    parts: dict[str, DecodedImages] = {}
    for part, (prefix, some, targets) in given.items():
        if some is None and targets is None:
            continue
        if some is None or targets is None:
            raise DataError(f"{prefix}images and {prefix}labels go together; one is missing")
        pixels, numbers = as_images(some, f"{prefix}images"), as_labels(targets, f"{prefix}labels")
        if len(pixels) != len(numbers) or not len(pixels):
            counts = f"{len(pixels)} {prefix}images, but {len(numbers)} {prefix}labels"
            raise DataError(f"{counts}; the numbers must agree and not be 0")
        parts[part] = DecodedImages(pixels, numbers)
    if class_names is None:
        names = numbered_names([part.labels for part in parts.values()], "labels")
        parts = {
            part: replace(of_part, labels=counted_from_zero(of_part.labels, names))
            for part, of_part in parts.items()
        }
    else:
        names = tuple(map(str, class_names))
        if len(set(names)) != len(names):
            raise DataError(f"class_names must be different, got {list(names)}")
        refuse_missing(names, "class_names")
    for part, of_part in parts.items():
        where = f"{given[part][0]}labels:"
        check_labels(of_part.labels, len(names), where, unknown=part == "train")
    notes: tuple[str, ...] = ()
    if not partial and class_names is not None:
        numbers, notes = renumber_used([one.labels for one in parts.values()], names, names)
        names = tuple(name for name, k in zip(names, numbers, strict=False) if k >= 0)
        parts = {part: replace(one, labels=numbers[one.labels]) for part, one in parts.items()}
    train = parts["train"]
    if not partial:
        refuse_empty_classes(train.labels, names, "labels")
    known = train.labels != UNLABELED
    without_label = [] if known.all() else [np.asarray(train.images)[~known]]
    if unlabeled is not None:
        more, shape = as_images(unlabeled, "unlabeled"), train.images.shape[1:]
        if more.shape[1:] != shape:
            shapes = f"unlabeled images are {more.shape[1:]}, images {shape}"
            raise DataError(f"{shapes}; they must agree")
        if len(more):
            without_label.append(more)
    return Source(
        name=name,
        class_names=names,
        train=train if known.all() else train.select(np.flatnonzero(known)),
        unlabeled=unlabeled_images(np.concatenate(without_label)) if without_label else None,
        validation=parts.get("validation"),
        test=parts.get("test"),
        flip=flip,
        notes=tuple(f"{name}: {note}" for note in notes),
        partial=partial,
    )


def from_pillow(values: Any, what: str, channels: int | None = None) -> Any:
    """Return Pillow images as an array, uint8 (N, C, H, W), and everything else as it is.

    Args:
        what: their name in errors.
        channels: C; None: 1 if all images are gray, else 3.

    Raises:
        DataError: their sizes differ, or there are names of files instead.
    """
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    is_list = isinstance(values, list | tuple) or (kind in ("O", "U") and values.ndim == 1)
    rows: Sequence[Any] = list(values) if is_list else []
    if rows and isinstance(rows[0], str | PathLike):
        raise DataError(
            f"{what} holds names of files, such as {str(rows[0])!r}; open and resize them: "
            "[Image.open(name).resize((32, 32)) for name in names]"
        )
    if not rows or not all(isinstance(row, Image.Image) for row in rows):
        return values
    images = [to_pixels(row, channels=channels) for row in rows]
    if any(len(image) != len(images[0]) for image in images):
        images = [to_pixels(row, channels=3) for row in rows]
    for number, image in enumerate(images):
        if image.shape != images[0].shape:
            one, first = ("{2} x {1}".format(*other.shape) for other in (image, images[0]))
            raise DataError(f"{what}: image {number} is {one} pixels, image 0 {first}; resize them")
    return np.stack(images)


def as_images(values: npt.ArrayLike, what: str) -> npt.NDArray[np.uint8]:
    """Convert images to uint8 (N, C, H, W); *what* names them in errors."""
    array = np.asarray(from_pillow(values, what))
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = _channels_first(array, what)
    else:
        hint = "; for vectors use daso.DASOClassifier" if array.ndim == 2 else ""
        shapes = "(N, H, W), (N, H, W, C) or (N, C, H, W)"
        raise DataError(f"{what} must be {shapes}, got {array.shape}{hint}")
    if not array[:1].size and len(array):
        raise DataError(f"{what} must not be empty, got {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise DataError(f"{what} must be uint8, or floats from 0 to 1, got {array.dtype}")
    pixels = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), CHUNK):
        part = array[start : start + CHUNK].astype(np.float32)
        outside = ~((part >= 0) & (part <= 1))
        if outside.any():
            index = int(np.flatnonzero(outside.any(axis=(1, 2, 3)))[0])
            which = f"{what}: image {start + index}" if len(array) > 1 else what
            raise DataError(
                f"{which} has the value {part[outside][0]}; floats must be numbers from 0 to 1 "
                "(divide by the largest value, or give uint8)"
            )
        pixels[start : start + CHUNK] = np.rint(part * 255)
    return pixels


def refuse_one_image(
    shape: tuple[int, ...], expected: tuple[int, ...], what: str = "an array"
) -> None:
    """Refuse the shape of one image, (H, W, C) or (C, H, W), where (N, H, W) is expected.

    *expected* is the shape (C, H, W) of the model's images; *what* names the array in the error.
    """
    if len(shape) != 3:
        return
    last = shape[2] in (1, 3, 4) and shape[1:] != expected[1:]
    if last or shape[0] == expected[0] == 3:
        axes = "(H, W, C)" if last else "(C, H, W)"
        raise DataError(
            f"{what} of shape {shape} reads like one image, {axes}, or like {shape[0]} gray ones; "
            "give [image] or image[None] for one, and (N, H, W, 1) for gray ones"
        )


def as_labels(values: npt.ArrayLike, what: str) -> npt.NDArray[np.int64]:
    """Convert labels to int64 (N,); *what* names them in errors."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] != 1:
        raise DataError(
            f"{what} has {array.shape[1]} columns; each image must have one label: several labels "
            "per image and one-hot labels are not supported"
        )
    if array.ndim == 2:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{what} must be of shape (N,), got {array.shape}")
    if array.dtype.kind not in "biu":
        raise DataError(f"{what} must be integers, 0 to K - 1 or -1 for unknown, got {array.dtype}")
    if array.dtype.kind == "u":  # 2**64 - 1 would become -1
        array = np.minimum(array.astype(np.uint64), np.iinfo(np.int64).max)
    return array.astype(np.int64)


def _channels_first(array: npt.NDArray[np.generic], what: str) -> npt.NDArray[np.generic]:
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first and last:
        raise DataError(f"{what}: {array.shape} is ambiguous, channels first or last; enlarge it")
    if not first and not last:
        valid = "1 (gray) or 3 (RGB) channels, first or last"
        raise DataError(f"{what} must have {valid}, got {array.shape}")
    return array if first else array.transpose(0, 3, 1, 2)
