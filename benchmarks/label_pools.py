"""Features of the images that ``label_loop.py`` labels, computed once, and long-tailed pools of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import first_of_each
from elpv import load_cells, test_and_pool
from torch import Tensor

from daso.data.draws import longtail_split
from daso.data.longtail import longtail_counts
from daso.data.open import open_source
from daso.label.features import of_backbone
from daso.nets.encoders.patches import IMAGES, PatchEncoder, geometries
from daso.readout.projection import Projection
from daso.train.encoder.pretrained import open_backbone
from daso.train.options import TrainOptions

Array = npt.NDArray[Any]
DIMENSIONS = 128
NETWORK = "timm:tf_efficientnet_lite0"
USED, TESTED = 2_000, 500
"""Images of each class that are used: training images for pools, test images."""
BATCH = 64


@dataclass(frozen=True)
class Vectors:
    """Features, float32 (N, d), and classes of training and test images."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array
    features: str


@dataclass(frozen=True)
class Pool:
    """Images of one seed: those with a label at the start come first.

    Attributes:
        features: (N, d). truth: (N,). labeled: number of labels at the start.
    """

    features: Array
    truth: Array
    labeled: int
    test: Array
    test_truth: Array
    classes: int


def read(name: str, place: Path | None, weights: Path | None, cache: Path) -> Vectors:
    """Return the features of a data set's images; they are computed once."""
    kind = "lite0" if weights is not None and name != "fashion-mnist" else "patches"
    path = cache / f"{name}-{kind}.npz"
    if not path.exists():
        train, train_labels, test, test_labels = _images(name, place)
        side = 224 if name == "elpv" else 96
        encode = _patches(train) if kind == "patches" else _pretrained(weights, side, train)
        found = [torch.cat(list(_batches(encode, images))) for images in (train, test)]
        projection = Projection.fit(found[0], DIMENSIONS)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            allow_pickle=False,
            train=projection(found[0]).numpy(),
            train_labels=train_labels,
            test=projection(found[1]).numpy(),
            test_labels=test_labels,
        )
    with np.load(path) as file:
        parts = ("train", "train_labels", "test", "test_labels")
        arrays = [file[part] for part in parts]
    return Vectors(arrays[0], arrays[1], arrays[2], arrays[3], kind)


def _images(name: str, place: Path | None) -> tuple[Array, Array, Array, Array]:
    """Return images, uint8 (N, C, H, W), and classes, for training and test."""
    if name != "elpv":
        source = open_source(name, data=place)
        assert source.test is not None
        pools = []
        for pool, number in ((source.train, USED), (source.test, TESTED)):
            chosen = first_of_each(pool.labels, number)
            pools += [np.asarray(pool.images[chosen]), pool.labels[chosen]]
        return pools[0], pools[1], pools[2], pools[3]
    photos, labels, _ = load_cells()
    test = np.zeros(len(labels), dtype=bool)
    test[np.concatenate([rows for rows, _ in test_and_pool(labels)])] = True
    photos = photos[:, None]
    return photos[~test], labels[~test], photos[test], labels[test]


def _patches(images: Array) -> Callable[[Tensor], Tensor]:
    channels, height, width = images.shape[1:]
    encoder = PatchEncoder(channels, geometries(height, width)).eval()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(images), generator=generator)[:IMAGES].sort().values.numpy()
    batches = (torch.from_numpy(images[chosen[at : at + 500]]) for at in range(0, len(chosen), 500))
    encoder.learn(batches, generator)
    return encoder


def _pretrained(weights: Path | None, side: int, images: Array) -> Callable[[Tensor], Tensor]:
    options = TrainOptions(network=NETWORK, weights=str(weights), resolution=side, freeze=True)
    backbone = open_backbone(options, images.shape[1:])
    assert backbone is not None
    encode = of_backbone(backbone, options, len(images)).encode
    return lambda batch: encode(batch.expand(-1, 3, -1, -1))


@torch.no_grad()
def _batches(encode: Callable[[Tensor], Tensor], images: Array) -> Iterator[Tensor]:
    for at in range(0, len(images), BATCH):
        yield encode(torch.from_numpy(images[at : at + BATCH]))


@dataclass(frozen=True)
class Setting:
    """Labels of the largest and the rarest class at the start, and images of the pool.

    Attributes:
        pool: images of the largest class; None: all, as imbalanced as they are.
        gamma: imbalance of the pool.
    """

    data: str
    labeled: int = 40
    rarest: int = 2
    pool: int | None = 1_500
    gamma: float = 50


SETTINGS = {
    "fashion-mnist": Setting("fashion-mnist"),
    "cifar10": Setting("cifar10"),
    "elpv": Setting("elpv", pool=None),
}


def draw(vectors: Vectors, setting: Setting, seed: int) -> Pool:
    """Draw long-tailed labels and a long-tailed pool; which classes are rare depends on the seed.

    Real imbalance is kept as it is.
    """
    truth, test_truth = vectors.train_labels, vectors.test_labels
    classes = int(truth.max()) + 1
    random = np.random.default_rng(seed)
    if setting.pool is None:
        counts = np.bincount(truth)
        start = np.maximum(setting.rarest, np.round(setting.rarest * counts / counts.min()))
        rows = [random.permutation(np.flatnonzero(truth == k)) for k in range(classes)]
        labeled = np.concatenate([r[: int(n)] for r, n in zip(rows, start, strict=True)])
        unlabeled = np.concatenate([r[int(n) :] for r, n in zip(rows, start, strict=True)])
    else:
        order = random.permutation(classes)
        renamed = order[truth]
        start = longtail_counts(setting.labeled, setting.labeled / setting.rarest, classes)
        pool = longtail_counts(setting.pool, setting.gamma, classes)
        split = longtail_split(renamed, start, pool, holdout=0, seed=seed)
        labeled, unlabeled = split.labeled, split.unlabeled
        truth, test_truth = renamed, order[test_truth]
    chosen = np.concatenate([random.permutation(labeled), random.permutation(unlabeled)])
    return Pool(
        vectors.train[chosen],
        truth[chosen],
        len(labeled),
        vectors.test,
        test_truth,
        classes,
    )
