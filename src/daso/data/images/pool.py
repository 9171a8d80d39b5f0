"""Images with labels, on the training device or in files that are read batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from daso.data.images.image_file import DIGEST_BYTES, ImageFile


class ImageRows(Protocol):
    """Images, or vectors, indexed by their first dimension, such as a tensor.

    Indexing by an integer, a slice, integers or a mask returns a tensor on ``device``.
    """

    @property
    def shape(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...
    def dim(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any) -> Tensor: ...


@dataclass(frozen=True)
class Pool:
    """N images, or vectors in their place, with labels.

    Attributes:
        images: uint8, (N, C, H, W); or vectors, float32, (N, V, D), in V versions each, the plain
            one first. A tensor on the training device, or rows of files.
        labels: int64, (N,); for unlabeled images the true class, for evaluation only, or -1.
        paths: the N paths of images that were read from files; otherwise empty.
        digests: uint8, (N, 16), of the images as they were read; otherwise empty.
    """

    images: ImageRows
    labels: Tensor
    paths: tuple[str, ...] = ()
    digests: npt.NDArray[np.uint8] = field(
        default_factory=lambda: np.empty((0, DIGEST_BYTES), np.uint8)
    )

    def __len__(self) -> int:
        return len(self.labels)


class FileRows:
    """Images in files, and possibly on the device, indexed like one tensor.

    Args:
        parts: tensors and files of images, in order.
        device: device of the tensors that indexing returns.
        places: int64 (n,), on the host, indices into all parts; None: all images.
    """

    def __init__(
        self,
        parts: Sequence[Tensor | ImageFile],
        device: torch.device,
        places: Tensor | None = None,
    ) -> None:
        self.parts, self.device = tuple(parts), device
        self._starts = list(itertools.accumulate(map(len, self.parts), initial=0))
        self.places = torch.arange(self._starts[-1]) if places is None else places
        self.shape = (len(self.places), *self.parts[0].shape[1:])

    @property
    def folder(self) -> Path:
        return next(part.path for part in self.parts if isinstance(part, ImageFile)).parent

    def dim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> Tensor:
        places = self.places[index.cpu() if isinstance(index, Tensor) else index]
        return self._read(places[None])[0] if places.dim() == 0 else self._read(places)

    def select(self, index: Tensor) -> FileRows:
        return FileRows(self.parts, self.device, self.places[index.cpu()])

    def _read(self, places: Tensor) -> Tensor:
        if len(self.parts) == 1:
            return self._images(self.parts[0], places)
        read, order = [], []
        for part, start in zip(self.parts, self._starts, strict=False):
            inside = ((places >= start) & (places < start + len(part))).nonzero()[:, 0]
            read.append(self._images(part, places[inside] - start))
            order.append(inside)
        # Back from the order of parts to that of *places*.
        return torch.cat(read).index_select(0, _put(torch.cat(order).argsort(), self.device))

    def _images(self, part: Tensor | ImageFile, places: Tensor) -> Tensor:
        if isinstance(part, Tensor):
            return part[places]
        return _put(torch.from_numpy(part[places.numpy()]), self.device)


def _put(values: Tensor, device: torch.device) -> Tensor:
    """Move values from the host to a device without waiting for it."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def join_rows(first: ImageRows, second: ImageRows) -> ImageRows:
    """Concatenate images; those in files stay there."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    one, other = _as_file_rows(first), _as_file_rows(second)
    places = torch.cat([one.places, other.places + sum(map(len, one.parts))])
    return FileRows([*one.parts, *other.parts], first.device, places)


def select_rows(rows: ImageRows, chosen: Tensor) -> ImageRows:
    """Return some of the images, by a mask or integers; those in files stay there."""
    return rows.select(chosen) if isinstance(rows, FileRows) else rows[chosen]


def _as_file_rows(rows: ImageRows) -> FileRows:
    if isinstance(rows, FileRows):
        return rows
    assert isinstance(rows, Tensor)
    return FileRows([rows], rows.device)
