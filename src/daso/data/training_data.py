"""The images of a run, after its split: as tensors on its device, or in a file where they take too much memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from daso.data.duplicates import digests_of
from daso.data.images.image_file import ImageFile
from daso.data.images.memory import available_memory
from daso.data.longtail import Indices, Split, SplitOptions
from daso.data.source import Decoded, Images, Source, select_images
from daso.data.split import make_split

COUNTED_IMAGES = 20_000
"""Images that the normalisation is computed from, where it is not published."""


MEMORY_SHARE = 0.5
"""Of the free memory, for decoded images that could also be read from a file."""


class ImageRows(Protocol):
    """Images, or vectors in their place, that are indexed by the first dimension; a tensor is one.

    What indexing returns is on ``device``: one image for an integer, those of a slice, of integers (a tensor or an
    array), or of a mask.
    """

    @property
    def shape(self) -> Any:
        """(N, ...)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where images are put."""
        ...

    def dim(self) -> int:
        """Return the number of dimensions."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any) -> Tensor: ...


def _put(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the host on a device, without waiting for it."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class FileRows:
    """Images in a file, of which those that are asked for are put on a device.

    Args:
        file: uint8 (N, C, H, W).
        device: where they are wanted.
    """

    def __init__(self, file: ImageFile, device: torch.device) -> None:
        self.file, self.device, self.shape = file, device, file.shape

    def dim(self) -> int:
        """Return 4."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: Any) -> Tensor:
        """Read images; see ``ImageFile``."""
        found = self.file[index.cpu().numpy() if isinstance(index, Tensor) else index]
        return _put(torch.from_numpy(found), self.device)


class JoinedRows:
    """Images of which the first ones are in one place and the others in another.

    Args:
        first, second: the images of both places.
        chosen: int64 (n,), on the host, the images of both together that these rows are, in this order; None: all.
    """

    def __init__(self, first: ImageRows, second: ImageRows, chosen: Tensor | None = None) -> None:
        self.parts, self.device, self.chosen = (first, second), first.device, chosen
        count = len(first) + len(second) if chosen is None else len(chosen)
        self.shape = (count, *first.shape[1:])

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> Tensor:
        """Return what indexing a tensor of all of them would return."""
        at = self._places(index)
        if at.dim() == 0:
            return self._read(at[None])[0]
        return self._read(at)

    def select(self, index: Tensor) -> JoinedRows:
        """Return some of the images, by a mask or integers, without reading any."""
        return JoinedRows(*self.parts, self._places(index))

    def _places(self, index: Any) -> Tensor:
        """Return where in both parts together images are, int64 on the host."""
        at = index.cpu() if isinstance(index, Tensor) else index
        if self.chosen is not None:
            return self.chosen[at]
        if isinstance(at, Tensor) and at.dtype != torch.bool:
            return at
        return torch.arange(len(self))[at]

    def _read(self, at: Tensor) -> Tensor:
        first, second = self.parts
        other = at >= len(first)
        found = torch.cat([first[at[~other]], second[at[other] - len(first)]])
        # The first part's images come before the other's there; back to the order that was asked for.
        place = torch.cat([(~other).nonzero()[:, 0], other.nonzero()[:, 0]]).argsort()
        return found.index_select(0, _put(place, self.device))


def join_rows(first: ImageRows, second: ImageRows) -> ImageRows:
    """Return the images of both; those that are in a file stay there."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    return JoinedRows(first, second)


def select_rows(rows: ImageRows, chosen: Tensor) -> ImageRows:
    """Return some of the images, by a mask or integers; those that are in a file stay there."""
    if isinstance(rows, FileRows):
        return FileRows(rows.file.select(chosen.cpu().numpy()), rows.device)
    return rows.select(chosen) if isinstance(rows, JoinedRows) else rows[chosen]


@dataclass(frozen=True)
class Pool:
    """Decoded images, or vectors in their place.

    Attributes:
        images: uint8, (N, C, H, W); or vectors, float32, (N, V, D), in V versions each, the first the plain one. A
            tensor on the training device, or in a file.
        labels: int64, (N,); of unlabelled images the truth where it is known, for evaluation only, else -1.
        paths: of the N images where they were read from files, else empty.
    """

    images: ImageRows
    labels: Tensor
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run reads, after its split.

    Attributes:
        class_names: K names.
        class_counts: int64, (K,), labelled images of each class.
        labeled, unlabeled, holdout, test: the pools; None where there are no such images.
        mean, std: of each channel, in [0, 1]; of vectors, of each dimension.
        flip: whether a mirrored image keeps its class.
        split: index arrays into the source's labelled pool.
        fingerprint: 16 hexadecimal digits that change with the split or its labels.
        images_fingerprints: of each pool by name, 16 that change with any pixel, label or their order; None where
            there is no pool.
        weak_versions: of the versions of a vector that follow the plain one, how many are weak views; the others are
            strong ones.
    """

    class_names: tuple[str, ...]
    class_counts: Indices
    labeled: Pool
    unlabeled: Pool | None
    holdout: Pool | None
    test: Pool | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    split: Split
    fingerprint: str
    images_fingerprints: dict[str, str | None]
    weak_versions: int = 0

    @property
    def are_vectors(self) -> bool:
        """Whether the pools hold vectors, not images."""
        return self.labeled.images.dim() == 3

    @property
    def shape(self) -> tuple[int, ...]:
        """What goes into the network for one image: channels, height and width; of a vector its length."""
        return tuple(
            self.labeled.images.shape[2:] if self.are_vectors else self.labeled.images.shape[1:]
        )


def _choose(source: Images | None, indices: Indices | None = None) -> Images | None:
    """Return the images of a pool, or None where there are none."""
    if source is None or (indices is not None and not len(indices)):
        return None
    if indices is None:
        return source
    paths = tuple(source.paths[i] for i in indices) if source.paths else ()
    return Images(select_images(source.images, indices), source.labels[indices], paths)


def _pool(chosen: Images, device: torch.device, room: float) -> Pool:
    """Put a pool on a device; images that are in a file stay there if they take more than *room* bytes."""
    images: ImageRows
    if isinstance(chosen.images, ImageFile) and chosen.images.nbytes > room:
        images = FileRows(chosen.images, device)
    else:
        # A reader may hand out a read-only view of a file; torch wants memory of its own.
        images = torch.from_numpy(np.require(chosen.images, requirements=["C", "W"])).to(device)
    return Pool(images, torch.from_numpy(chosen.labels).to(device), chosen.paths)


def _room(device: torch.device, memory: float | None) -> float:
    """Return the bytes that images in a file may take in memory instead."""
    if memory is not None:
        return memory * 1e9
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return float("inf") if free is None else MEMORY_SHARE * free


def _channel_statistics(pools: Sequence[Decoded]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, in [0, 1], over at most 20,000 images of the pools.

    These are spread evenly over all pools, whatever order their images are in.
    """
    total = sum(map(len, pools))
    stride = max(1, -(-total // COUNTED_IMAGES))
    histogram = torch.zeros(pools[0].shape[1], 256, dtype=torch.float64)
    for images in pools:
        for start in range(0, len(images), 256 * stride):
            chunk = torch.from_numpy(
                np.ascontiguousarray(images[start : start + 256 * stride : stride])
            )
            for channel in range(len(histogram)):
                values = chunk[:, channel].flatten().long()
                histogram[channel] += torch.bincount(values, minlength=256)
    share = histogram / histogram.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    std = ((share @ levels.square()) - mean.square()).clamp(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def vector_statistics(pools: Sequence[Decoded]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each dimension over the plain vectors; 1 where all are alike."""
    vectors = torch.cat([torch.from_numpy(np.asarray(images)[:, 0]) for images in pools]).double()
    std = vectors.std(0, correction=0)
    return tuple(vectors.mean(0).tolist()), tuple(torch.where(std > 1e-12, std, 1.0).tolist())


def _fingerprint(pool: Images | None) -> str | None:
    """Return 16 hexadecimal digits that change with any pixel or label of a pool, or with their order."""
    if pool is None:
        return None
    total = hashlib.blake2b(repr(tuple(pool.images.shape)).encode(), digest_size=8)
    for value in digests_of(pool):
        total.update(value)
    total.update(np.ascontiguousarray(pool.labels).data)
    return total.hexdigest()


def prepare_data(
    source: Source,
    options: SplitOptions,
    seed: int,
    device: torch.device,
    memory: float | None = None,
) -> TrainingData:
    """Split a source and put its images on a device.

    Args:
        source: as a reader returned it.
        options: of the split.
        seed: of the split; the authors' seed gives the authors' split.
        device: where the images shall lie.
        memory: GB that images of a cache may take on the device; a pool that takes more is read from there as it is
            needed. None: half of what is free.

    Raises:
        DataError, OptionError: see ``make_split``.
    """
    split = make_split(source, options, seed)
    labeled = _choose(source.train, split.labeled)
    assert labeled is not None  # every class has at least one labelled image
    chosen = {
        "labeled": labeled,
        "unlabeled": source.unlabeled or _choose(source.train, split.unlabeled),
        "holdout": _choose(source.train, split.holdout) or source.validation,
        "test": source.test,
    }
    mean, std = source.mean, source.std
    if mean is None or std is None:
        statistics = vector_statistics if labeled.images.ndim == 3 else _channel_statistics
        trained = (chosen["labeled"], chosen["unlabeled"])
        mean, std = statistics([pool.images for pool in trained if pool is not None])
    room = _room(device, memory)
    pools: dict[str, Pool | None] = {}
    for name in ("labeled", "holdout", "test", "unlabeled"):
        pool = chosen[name]
        pools[name] = placed = None if pool is None else _pool(pool, device, room)
        if pool is not None and placed is not None and isinstance(placed.images, Tensor):
            room -= pool.images.nbytes
    first = pools["labeled"]
    assert first is not None
    return TrainingData(
        class_names=source.class_names,
        class_counts=np.bincount(
            source.train.labels[split.labeled], minlength=len(source.class_names)
        ),
        labeled=first,
        unlabeled=pools["unlabeled"],
        holdout=pools["holdout"],
        test=pools["test"],
        mean=mean,
        std=std,
        flip=source.flip,
        split=split,
        fingerprint=split.fingerprint(source.train.labels),
        images_fingerprints={name: _fingerprint(pool) for name, pool in chosen.items()},
    )
