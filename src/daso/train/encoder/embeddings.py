"""Embeddings of images by a frozen backbone: computed once, kept on disk, trained on as vectors in versions.

A folder of embeddings belongs to one backbone, one preprocessing and one way to augment; its name is the checksum of
these. In it every embedding is found by the checksum of its image, so that runs share them, whatever their seed, split
or method. They lie in shards of a few hundred images, each written at once and called by the checksum of its content:
what was finished before a process was killed is there when the next one starts, and a damaged shard is removed and
computed anew. What is augmented is a function of the image, not of the run's seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from daso.data.benchmarks.download import cache_folder
from daso.data.images.pool import ImageRows, Pool
from daso.data.training_data import TrainingData
from daso.errors import DataError, RunError
from daso.files import save_json, write_atomically
from daso.methods.method import View
from daso.nets.backbone import Backbone
from daso.nets.network import Network
from daso.train.options import TrainOptions
from daso.train.step.augmentation import Augmentation
from daso.train.step.sampling import derive_seed
from daso.train.view_options import ViewOptions

SHARD = 256
"""Images of a shard: what is lost at most when a process is killed."""
PIXELS, PIXELS_CPU = 2**22, 2**19
"""Of the images that go through the backbone at a time, at its resolution: a CPU is faster where activations stay in
its caches."""
DIGEST = 16
FORMAT = 1

Progress = Callable[[int, int], None]
"""Is told how many images are done, of how many."""


@dataclass(frozen=True)
class EmbeddedData(TrainingData):
    """The data of a run on the embeddings of a frozen backbone: pools of vectors, float32 (N, V, D).

    Attributes:
        image_shape: channels, height and width of the images.
        folder: of the embeddings with augmentation.
        computed: embeddings that were not found there; the others were.
        pictured: the labelled and unlabelled images themselves, on the host, where they do not stand in files.
    """

    image_shape: tuple[int, ...] = ()
    folder: Path = Path()
    computed: int = 0
    pictured: dict[str, Pool] = dataclasses.field(default_factory=dict)

    def describe_embeddings(self) -> dict[str, Any]:
        """Return what a run folder says of them."""
        versions = self.labeled.images.shape[1]
        strong = versions - 1 - self.weak_versions
        return {
            "embedding": {"folder": str(self.folder), "weak": self.weak_versions, "strong": strong}
        }


class EmbeddingStore:
    """Embeddings of images on disk, each in V versions, float16 (float32 where a number is too large for it).

    Args:
        folder: one for each way to compute them; it is made.
        about: JSON values that tell, for a person, what they are; written into ``about.json``.

    Raises:
        RunError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot make {folder}: {error.strerror}; --embedding-folder DIR keeps embeddings elsewhere"
            ) from error
        if not (folder / "about.json").is_file():
            save_json(folder / "about.json", about)

    def collect(
        self,
        digests: Sequence[bytes],
        compute: Callable[[Sequence[int]], Tensor],
        out: np.ndarray,
        done: Progress,
    ) -> int:
        """Fill *out*, float32 (N, V, D), with the embeddings of N images; compute those that are not there.

        Args:
            digests: of the images, ``DIGEST`` bytes each.
            compute: returns the embeddings, float32 (n, V, D), of the images with these numbers.
            out: is written to.
            done: is told how many images there are.

        Returns:
            How many were computed.

        Raises:
            RunError: a shard cannot be written.
        """
        rows: dict[bytes, list[int]] = {}
        for row, digest in enumerate(digests):
            rows.setdefault(digest, []).append(row)
        for path in sorted(self.folder.glob("*.safetensors")):
            self._take(path, rows, out)
        missing = [group[0] for group in rows.values()]
        done(len(digests) - sum(map(len, rows.values())), len(digests))
        for start in range(0, len(missing), SHARD):
            chosen = missing[start : start + SHARD]
            embeddings = compute(chosen).cpu().numpy()
            with np.errstate(over="ignore"):
                half = embeddings.astype(np.float16)
            kept = half if np.isfinite(half).all() else embeddings
            self._write([digests[row] for row in chosen], kept)
            for row, embedding in zip(chosen, kept, strict=True):
                out[rows.pop(digests[row])] = embedding
            done(len(digests) - sum(map(len, rows.values())), len(digests))
        return len(missing)

    def _take(self, path: Path, rows: dict[bytes, list[int]], out: np.ndarray) -> None:
        """Copy the embeddings that are wanted from a shard; those found are wanted no more."""
        try:
            content = path.read_bytes()
            if _checksum(content) != path.stem:
                raise ValueError("its checksum does not fit")
            shard = safetensors.numpy.load(content)
            digests, embeddings = shard["digests"], shard["embeddings"]
        except (OSError, ValueError, KeyError, SafetensorError):
            with contextlib.suppress(OSError):
                path.unlink()
            return
        for digest, embedding in zip(digests, embeddings, strict=True):
            wanted = rows.pop(digest.tobytes(), None)
            if wanted is not None:
                out[wanted] = embedding

    def _write(self, digests: Sequence[bytes], embeddings: np.ndarray) -> None:
        shard = {
            "digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST),
            "embeddings": np.ascontiguousarray(embeddings),
        }
        content = safetensors.numpy.save(shard)
        write_atomically(self.folder / f"{_checksum(content)}.safetensors", content)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def embed_data(
    data: TrainingData,
    backbone: Backbone,
    options: TrainOptions,
    views: ViewOptions,
    progress: Progress | None = None,
) -> EmbeddedData:
    """Return the data of a run as embeddings.

    Labelled and unlabelled images come plain, in ``weak_versions`` weak and ``strong_versions`` strong views; test and
    hold-out images plain only.

    Args:
        data: images, on the device that computes.
        backbone: its preprocessing is complete.
        options: versions, precision, and where embeddings are kept.
        views: of images.
        progress: is told of every pool's images.

    Raises:
        DataError: the backbone returns NaN or infinity.
        RunError: embeddings cannot be written.
    """
    tell = progress or _ignore
    device = data.labeled.images.device
    given = backbone.preprocessing
    assert given.mean is not None
    assert given.std is not None
    network = Network(
        backbone.module,  # type: ignore[arg-type]
        {},
        given.mean,
        given.std,
        options.precision,
        given.resolution,
        interpolation=given.interpolation,
    )
    network = network.to(device).eval()
    _, height, width = data.shape
    augmentation = Augmentation(views, height, width, data.flip)
    kinds: list[View] = [*["weak"] * options.weak_versions, *["strong"] * options.strong_versions]  # type: ignore[list-item]

    whole = backbone.describe()
    about: dict[str, Any] = {
        name: whole[name] for name in ("kind", "dim", "preprocessing", "weights")
    }
    about |= {"format": FORMAT, "precision": options.precision, "image_shape": list(data.shape)}
    base = (
        cache_folder() / "embeddings"
        if options.embedding_folder is None
        else Path(options.embedding_folder)
    )
    plain = _store(base.expanduser(), {**about, "views": ["plain"]})
    viewed_by = {
        name: value for name, value in vars(augmentation.options).items() if value is not None
    }
    viewed = _store(base.expanduser(), {**about, "views": kinds, "augmentation": viewed_by})

    pools: dict[str, Pool | None] = {}
    computed = 0
    wanted = {name: getattr(data, name) for name in ("labeled", "unlabeled", "holdout", "test")}
    total = sum(len(pool) for pool in wanted.values() if pool is not None)
    before = 0

    def count(done: int, _: int) -> None:
        tell(before + done, total)

    for name, pool in wanted.items():
        if pool is None:
            pools[name] = None
            continue
        digests = [_digest(image) for image in pool.images]
        parts: list[tuple[EmbeddingStore, list[View]]] = [(plain, ["identity"])]
        if kinds and name in ("labeled", "unlabeled"):
            parts.append((viewed, kinds))
        versions = sum(len(part) for _, part in parts)
        vectors = np.empty((len(pool), versions, whole["dim"]), np.float32)
        start = 0
        for store, part in parts:
            last = start + len(part) == versions
            computed += store.collect(
                digests,
                _computer(network, augmentation, pool.images, digests, part),
                vectors[:, start : start + len(part)],
                count if last else _ignore,  # the views, which take most of the time
            )
            start += len(part)
        before += len(pool)
        pools[name] = Pool(torch.from_numpy(vectors).to(device), pool.labels, pool.paths)
    mean, std = _statistics(
        [pool for name in ("labeled", "unlabeled") if (pool := pools[name]) is not None]
    )
    known = {field.name: getattr(data, field.name) for field in dataclasses.fields(TrainingData)}
    known |= {"mean": mean, "std": std, "weak_versions": options.weak_versions}
    pictured = {
        name: Pool(
            pool.images.cpu() if isinstance(pool.images, Tensor) else pool.images, pool.labels
        )
        for name in ("labeled", "unlabeled")
        if (pool := wanted[name]) is not None and not pool.paths
    }
    return EmbeddedData(
        **{**known, **pools},
        image_shape=tuple(data.shape),
        folder=viewed.folder,
        computed=computed,
        pictured=pictured,
    )


def _ignore(done: int, total: int) -> None:
    """Drop news of progress."""


def _store(base: Path, about: dict[str, Any]) -> EmbeddingStore:
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return EmbeddingStore(base / name, about)


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(
        np.ascontiguousarray(image.cpu().numpy()).data, digest_size=DIGEST
    ).digest()


def _computer(
    network: Network,
    augmentation: Augmentation,
    images: ImageRows,
    digests: Sequence[bytes],
    kinds: Sequence[View],
) -> Callable[[Sequence[int]], Tensor]:
    """Return a function that computes the embeddings of some images, one version after the other."""
    side = network.resolution
    pixels = images.shape[2] * images.shape[3] if side is None else side * side
    batch = max(1, (PIXELS_CPU if images.device.type == "cpu" else PIXELS) // pixels)

    @torch.no_grad()
    def compute(rows: Sequence[int]) -> Tensor:
        chosen = images[torch.tensor(rows, device=images.device)]
        generators = [
            torch.Generator().manual_seed(
                derive_seed(0, "embedding", int.from_bytes(digests[row], "little"))
            )
            for row in rows
        ]
        versions = []
        for kind in kinds:
            drawn = [augmentation.draw(kind, 1, generator) for generator in generators]
            view = augmentation.make(kind, chosen, drawn)
            versions.append(torch.cat([network(part) for part in torch.split(view, batch)]))
        embeddings = torch.stack(versions, 1)
        if not bool(embeddings.isfinite().all()):
            raise DataError(
                "the backbone returns NaN or infinity for some images; try --precision float32"
            )
        return embeddings

    return compute


def _statistics(pools: Sequence[Pool]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each dimension of the plain vectors; 1 where all are alike."""
    vectors = torch.cat([pool.images[:, 0] for pool in pools]).double()
    std = vectors.std(0, correction=0)
    return tuple(vectors.mean(0).tolist()), tuple(torch.where(std > 1e-12, std, 1.0).tolist())
