"""Patch features: learned without labels, and kept beside the embeddings of a frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.data.images.pool import ImageRows
from daso.data.training_data import TrainingData
from daso.evaluate.predict import rows_at_once
from daso.nets.encoders.patches import IMAGES, PatchEncoder, geometries
from daso.nets.readout import Block, Readout, mean_of_views
from daso.readout.projection import MOST_ROWS, Projection
from daso.train.encoder.embeddings import TRAINED, EmbeddedData, Patches
from daso.train.folder.checkpoint import has_checkpoint, load_checkpoint, without_prefix
from daso.train.step.sampling import derive_seed

COMPONENTS = 256
"""Components that are kept of each kind of features, before they are joined."""


def _patches_of_run(folder: Path, device: torch.device) -> Patches | None:
    """Return the patches that a run's readout reads; None if it reads none.

    Raises:
        RunError: every checkpoint is damaged.
    """
    state = load_checkpoint(folder / "checkpoints", lambda _: None).average()
    readout = Readout.like(state)
    if readout is None or readout.patches is None:
        return None
    readout.load_state_dict(without_prefix(state, "readout."))
    readout.to(device)
    return Patches(readout.patches, cast(Block, readout.blocks["patches"]).projection())


def _seeded(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, purpose, 0))


def shuffled_rows(data: TrainingData, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of all labeled and of at most *most* unlabeled images, shuffled."""
    unlabeled = 0 if data.unlabeled is None else len(data.unlabeled)
    order = torch.randperm(unlabeled, generator=_seeded(seed, "readout"))
    return torch.arange(len(data.labeled)), order[:most]


def learn_patches(data: TrainingData, seed: int) -> PatchEncoder:
    """Learn an encoder of patches from labeled and unlabeled images, uint8 (N, C, H, W)."""
    channels, height, width = data.shape
    images = data.labeled.images
    encoder = PatchEncoder(channels, geometries(height, width)).to(images.device)
    labeled, unlabeled = shuffled_rows(data, IMAGES, seed)
    labeled = labeled[torch.randperm(len(labeled), generator=_seeded(seed, "labeled"))]
    total = len(labeled) + len(unlabeled)
    batches = []
    for pool, rows in ((data.labeled, labeled), (data.unlabeled, unlabeled)):
        if pool is not None and len(rows):
            chosen = rows[: math.ceil(IMAGES * len(rows) / max(total, IMAGES))]
            batches += [pool.images[part.to(images.device)] for part in torch.split(chosen, 500)]
    encoder.learn(batches, _seeded(seed, "patches"))
    return encoder


@torch.no_grad()
def beside_embeddings(
    embedded: EmbeddedData, images: TrainingData, seed: int, folder: Path | None = None
) -> EmbeddedData:
    """Append the components of patch features to the plain embedding of each image.

    Args:
        embedded: pools (N, V, E); those of the result are (N, V, E + ``COMPONENTS``), with zeros
            beside other versions than the first.
        images: the same data as uint8 images. Their features are averaged over as many mirror
            images as there are embeddings of.
        folder: of a run that is resumed, whose readout has the patches, or reads none.

    Raises:
        RunError: every checkpoint of the run is damaged.
    """
    known, device = None, images.labeled.images.device
    if folder is not None and has_checkpoint(folder / "checkpoints"):
        known = _patches_of_run(folder, device)
        if known is None:
            return embedded
    encoder = learn_patches(images, seed) if known is None else known.encoder

    def features(batch: Tensor) -> Tensor:
        return mean_of_views(encoder, batch, embedded.mirrorings)

    all_rows = shuffled_rows(images, MOST_ROWS, seed)
    spread = math.ceil(sum(map(len, all_rows)) / MOST_ROWS)
    rows = {name: some[::spread] for name, some in zip(TRAINED, all_rows, strict=True)}
    sample: dict[str, Tensor] = {}
    if known is None:
        for name, some in rows.items():
            if len(some):
                sample[name] = _apply(features, images.pools[name].images, some)
        known = Patches(encoder, Projection.fit(torch.cat(list(sample.values())), COMPONENTS))
    project = known.projection
    pools: dict[str, Any] = {}
    for name, pool in embedded.pools.items():
        vectors = F.pad(pool.images[:], (0, COMPONENTS))
        beside = vectors[:, 0, -COMPONENTS:][:, : len(project.bias)]
        others = torch.ones(len(pool), dtype=torch.bool)
        if name in sample:
            others[rows[name]] = False
            beside[rows[name].to(beside.device)] = project(sample[name])
        if len(rest := others.nonzero()[:, 0]):
            pixels = images.pools[name].images
            found = _apply(lambda batch: project(features(batch)), pixels, rest)
            beside[rest.to(beside.device)] = found
        pools[name] = replace(pool, images=vectors)
    return replace(embedded, **pools, patches=known)


def _apply(function: Callable[[Tensor], Tensor], images: ImageRows, rows: Tensor) -> Tensor:
    size = rows_at_once(images.shape[1:], images.device)
    return torch.cat([function(images[part.to(images.device)]) for part in torch.split(rows, size)])
