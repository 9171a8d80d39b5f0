"""The images of a run, after its split, as tensors on its device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from daso.data.longtail import Indices, Split, SplitOptions
from daso.data.source import Images, Source
from daso.data.split import make_split

COUNTED_IMAGES = 20_000
"""Images that the normalisation is computed from, where it is not published."""


@dataclass(frozen=True)
class Pool:
    """Decoded images, or vectors in their place, on the training device.

    Attributes:
        images: uint8, (N, C, H, W); or vectors, float32, (N, V, D), in V versions each, the first the plain one.
        labels: int64, (N,); of unlabelled images the truth where it is known, for evaluation only, else -1.
        paths: of the N images where they were read from files, else empty.
    """

    images: Tensor
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
        return tuple(self.labeled.images.shape[2:] if self.are_vectors else self.labeled.images.shape[1:])


def _pool(source: Images | None, device: torch.device, indices: Indices | None = None) -> Pool | None:
    if source is None or (indices is not None and not len(indices)):
        return None
    images, labels, paths = source.images, source.labels, source.paths
    if indices is not None:
        images, labels = images[indices], labels[indices]
        paths = tuple(paths[i] for i in indices) if paths else ()
    # A reader may hand out a read-only view of a file; torch wants memory of its own.
    images = np.require(images, requirements=["C", "W"])
    return Pool(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device), paths)


def _channel_statistics(pools: Sequence[Pool]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, in [0, 1], over at most 20,000 images of the pools.

    These are spread evenly over all pools, whatever order their images are in.
    """
    total = sum(map(len, pools))
    stride = max(1, -(-total // COUNTED_IMAGES))
    histogram = torch.zeros(pools[0].images.shape[1], 256, dtype=torch.float64)
    for pool in pools:
        for chunk in torch.split(pool.images[::stride], 256):
            for channel in range(len(histogram)):
                values = chunk[:, channel].flatten().long()
                histogram[channel] += torch.bincount(values, minlength=256).cpu()
    share = histogram / histogram.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    std = ((share @ levels.square()) - mean.square()).clamp(min=1e-6).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def _vector_statistics(pools: Sequence[Pool]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each dimension over the plain vectors; 1 where all are alike."""
    vectors = torch.cat([pool.images[:, 0] for pool in pools]).double()
    std = vectors.std(0, correction=0)
    return tuple(vectors.mean(0).tolist()), tuple(torch.where(std > 1e-12, std, 1.0).tolist())


def _fingerprint(pool: Pool | None) -> str | None:
    """Return 16 hexadecimal digits that change with any pixel or label of a pool, or with their order."""
    if pool is None:
        return None
    digest = hashlib.blake2b(repr(tuple(pool.images.shape)).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pool.images.cpu().numpy()).data)
    digest.update(np.ascontiguousarray(pool.labels.cpu().numpy()).data)
    return digest.hexdigest()


def prepare_data(source: Source, options: SplitOptions, seed: int, device: torch.device) -> TrainingData:
    """Split a source and put its images on a device.

    Args:
        source: as a reader returned it.
        options: of the split.
        seed: of the split; the authors' seed gives the authors' split.
        device: where the images shall lie.

    Raises:
        DataError, OptionError: see ``make_split``.
    """
    split = make_split(source, options, seed)
    labeled = _pool(source.train, device, split.labeled)
    assert labeled is not None  # every class has at least one labelled image
    unlabeled = _pool(source.unlabeled, device) or _pool(source.train, device, split.unlabeled)
    holdout = _pool(source.train, device, split.holdout) or _pool(source.validation, device)
    test = _pool(source.test, device)
    mean, std = source.mean, source.std
    if mean is None or std is None:
        statistics = _vector_statistics if labeled.images.dim() == 3 else _channel_statistics
        mean, std = statistics([pool for pool in (labeled, unlabeled) if pool is not None])
    pools = {"labeled": labeled, "unlabeled": unlabeled, "holdout": holdout, "test": test}
    return TrainingData(
        class_names=source.class_names,
        class_counts=np.bincount(source.train.labels[split.labeled], minlength=len(source.class_names)),
        labeled=labeled,
        unlabeled=unlabeled,
        holdout=holdout,
        test=test,
        mean=mean,
        std=std,
        flip=source.flip,
        split=split,
        fingerprint=split.fingerprint(source.train.labels),
        images_fingerprints={name: _fingerprint(pool) for name, pool in pools.items()},
    )
