"""The images of a run after its split, on the training device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from daso.data.draws import Split
from daso.data.images.decoded import Decoded, DecodedImages
from daso.data.images.image_file import ImageFile
from daso.data.images.memory import available_memory
from daso.data.images.pool import FileRows, ImageRows, Pool
from daso.data.longtail import Indices, SplitOptions
from daso.data.source import Source
from daso.data.split import make_split

COUNTED_IMAGES, COUNTED_PIXELS = 20_000, 2**26
"""Images, and their pixels, that the mean and deviation of channels are over, at most."""
CHUNK = 256
MEMORY_SHARE = 0.5
"""Share of the free memory for decoded images that could be read from a file instead."""
POOLS = ("labeled", "unlabeled", "holdout", "test")
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class TrainingData:
    """All images that a run reads, after the split.

    Attributes:
        class_names: K names.
        class_counts: int64, (K,), labeled images of each class.
        labeled, unlabeled, holdout, test: the pools; None if there are no such images.
        mean, std: of each channel, in [0, 1]; of vectors, of each dimension.
        flip: whether a mirrored image keeps its class.
        split: index arrays into the source's labeled images.
        fingerprint: 16 hexadecimal digits that depend on the split and its labels.
        images_fingerprints: by pool, 16 hexadecimal digits that depend on its pixels, labels and
            order; None without a pool.
        class_fingerprints: by pool of measured images, 16 digits for each class, which depend on
            its images alone; None for a class without any.
        weak_versions: number of a vector's versions, after the plain one, that are weak views; the
            others are strong views.
        mirrorings: number of them that are embeddings of the mirrored image; they come first.
        journal: see ``Source``.
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
    class_fingerprints: dict[str, list[str | None] | None] = field(default_factory=dict)
    weak_versions: int = 0
    mirrorings: int = 0
    journal: dict[str, Any] | None = None

    @property
    def pools(self) -> dict[str, Pool]:
        """The pools that there are, by name."""
        pools = {name: getattr(self, name) for name in POOLS}
        return {name: pool for name, pool in pools.items() if pool is not None}

    @property
    def are_vectors(self) -> bool:
        return self.labeled.images.dim() == 3

    @property
    def shape(self) -> tuple[int, ...]:
        """The network's input for one image: (C, H, W), or (D,) for a vector."""
        return tuple(self.labeled.images.shape[2 if self.are_vectors else 1 :])


def prepare_data(
    source: Source,
    options: SplitOptions,
    seed: int,
    device: torch.device,
    memory: float | None = None,
) -> TrainingData:
    """Split a source and put its images on a device.

    Args:
        seed: of the split; the authors' seeds give the authors' splits.
        memory: GB that images of a cache may take on the device; a pool that needs more is read
            from its file. None: half of the free memory.
    """
    split = make_split(source, options, seed)
    labeled = source.train.select(split.labeled)
    images = {
        "labeled": labeled,
        "holdout": source.train.select(split.holdout) or source.validation,
        "test": source.test,
        "unlabeled": source.unlabeled or source.train.select(split.unlabeled) or None,
    }
    mean, std = source.mean, source.std
    if mean is None or std is None:
        statistics = vector_statistics if labeled.images.ndim == 3 else _channel_statistics
        trained = (labeled, images["unlabeled"])
        mean, std = statistics([part.images for part in trained if part is not None])
    free = _free_bytes(device, memory)
    pools: dict[str, Pool] = {}
    for name, part in images.items():
        if part is not None:
            pools[name] = _pool(part, device, free)
            if isinstance(pools[name].images, Tensor):
                free -= part.images.nbytes
    return TrainingData(
        class_names=source.class_names,
        class_counts=np.bincount(labeled.labels, minlength=len(source.class_names)),
        labeled=pools["labeled"],
        unlabeled=pools.get("unlabeled"),
        holdout=pools.get("holdout"),
        test=pools.get("test"),
        mean=mean,
        std=std,
        flip=source.flip,
        split=split,
        fingerprint=split.fingerprint(source.train.labels),
        images_fingerprints={name: _fingerprint(images[name]) for name in POOLS},
        class_fingerprints={
            name: _class_fingerprints(images[name], len(source.class_names))
            for name in ("holdout", "test")
        },
        journal=source.journal,
    )


def _pool(part: DecodedImages, device: torch.device, free: float) -> Pool:
    """Put images on a device; those in a file stay there if they need more than *free* bytes."""
    images: ImageRows
    if isinstance(part.images, ImageFile) and part.images.nbytes > free:
        images = FileRows([part.images], device)
    else:
        # A reader may return a read-only view of a file; torch needs memory of its own.
        images = torch.from_numpy(np.require(part.images, requirements=["C", "W"])).to(device)
    labels = torch.from_numpy(part.labels).to(device)
    return Pool(images, labels, part.paths, part.digests)


def _free_bytes(device: torch.device, memory: float | None) -> float:
    if memory is not None:
        return memory * 1e9
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return float("inf") if free is None else MEMORY_SHARE * free


def _channel_statistics(parts: Sequence[Decoded]) -> Statistics:
    """Return each channel's mean and deviation, in [0, 1], over spread images."""
    height, width = parts[0].shape[2:]
    most = min(COUNTED_IMAGES, max(1, COUNTED_PIXELS // (height * width)))
    stride = max(1, -(-sum(map(len, parts)) // most))
    histogram = torch.zeros(parts[0].shape[1], 256, dtype=torch.float64)
    for images in parts:
        for start in range(0, len(images), CHUNK * stride):
            some = images[start : start + CHUNK * stride : stride]
            pixels = torch.from_numpy(np.ascontiguousarray(some))
            for channel in range(len(histogram)):
                values = pixels[:, channel].flatten().long()
                histogram[channel] += torch.bincount(values, minlength=256)
    share = histogram / histogram.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    std = ((share @ levels.square()) - mean.square()).clamp(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def vector_statistics(parts: Sequence[Decoded]) -> Statistics:
    """Return each dimension's mean and deviation (1 if constant) over the plain vectors."""
    vectors = torch.cat([torch.from_numpy(np.asarray(images)[:, 0]) for images in parts]).double()
    std = vectors.std(0, correction=0)
    return tuple(vectors.mean(0).tolist()), tuple(torch.where(std > 1e-12, std, 1.0).tolist())


def _fingerprint(part: DecodedImages | None) -> str | None:
    if part is None:
        return None
    total = hashlib.blake2b(repr(tuple(part.images.shape)).encode(), digest_size=8)
    total.update(np.ascontiguousarray(part.digests).data)
    total.update(np.ascontiguousarray(part.labels).data)
    return total.hexdigest()


def _class_fingerprints(part: DecodedImages | None, num_classes: int) -> list[str | None] | None:
    if part is None:
        return None
    order = np.lexsort(part.digests.T)
    digests, labels = part.digests[order], part.labels[order]
    return [
        hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest() if len(rows) else None
        for rows in (digests[labels == k] for k in range(num_classes))
    ]
