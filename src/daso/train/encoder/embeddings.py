"""Embeddings of images by a frozen backbone: computed once, kept on disk, trained on as vectors.

A folder belongs to one backbone, preprocessing and augmentation, whose checksum is its name. In it,
an embedding is found by the checksum of its image, and augmentation depends on the image alone: all
seeds, splits and methods share them. A shard is written at once and named by its checksum: a killed
process loses at most one, and a damaged one is computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from daso.data.benchmarks.download import cache_folder
from daso.data.images.pool import ImageRows, Pool
from daso.data.training_data import TrainingData, vector_statistics
from daso.errors import DataError
from daso.files import make_folder, reported, save_json, write_atomically
from daso.methods.method import View
from daso.nets.backbone import Backbone
from daso.nets.encoders.patches import PatchEncoder
from daso.nets.engines import FusedEncoder, accelerate
from daso.nets.network import Network
from daso.nets.readout import MIRRORINGS
from daso.readout.projection import Projection
from daso.train.encoder.build import build_network
from daso.train.options import TrainOptions
from daso.train.step.augmentation import Augmentation
from daso.train.step.sampling import derive_seed
from daso.train.view_options import ViewOptions

SHARD = 256
"""Images per shard."""
PIXELS, PIXELS_CPU = 2**22, 2**19
"""Pixels that pass through the backbone at a time; few on a CPU, for its caches."""
DIGEST = 16
"""Bytes of an image's checksum."""
FORMAT = 1
TRAINED = ("labeled", "unlabeled")
"""Pools that are trained on."""

Version = tuple[View, tuple[int, ...]]
"""A view of an image, and the dimensions of the image that are reversed before."""
Progress = Callable[[int, int], None]
"""Called with the number of views that are embedded and the number of all views."""
Advance = Callable[[int], None]
"""Called with the number of views that were embedded since the last call."""


@dataclass(frozen=True)
class Patches:
    """An encoder of image patches, and the projection of its features to components."""

    encoder: PatchEncoder
    projection: Projection


@dataclass(frozen=True)
class EmbeddedData(TrainingData):
    """The data of a run on embeddings: pools of vectors, float32 (N, V, D).

    Attributes:
        folder: folder of the embeddings of augmented images.
        engine: what computed those that were missing; see ``accelerate``.
        digest: 16 hexadecimal digits of all embeddings; processors and engines round differently.
        pictured: the labeled and unlabeled images themselves, on the host, unless they are files.
        patches: whose components follow the plain embeddings, if any do.
    """

    image_shape: tuple[int, ...] = ()
    folder: Path = Path()
    computed: int = 0
    engine: str = "torch"
    digest: str = ""
    pictured: dict[str, Pool] = dataclasses.field(default_factory=dict)
    patches: Patches | None = None

    def describe_embeddings(self) -> dict[str, Any]:
        strong = self.labeled.images.shape[1] - 1 - self.weak_versions
        weak = self.weak_versions - self.mirrorings
        counts = {"mirrored": self.mirrorings, "weak": weak, "strong": strong}
        return {"embedding": {"folder": str(self.folder), **counts, "digest": self.digest}}


class EmbeddingStore:
    """Embeddings on disk, each image in V versions, float16, or float32 where a value needs it.

    Raises:
        RunError: the folder, which is created if missing, cannot be written.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        make_folder(folder)
        if not (folder / "about.json").is_file():
            save_json(folder / "about.json", about)

    def collect(
        self, digests: Sequence[bytes], compute: Callable[[Sequence[int]], Tensor], out: np.ndarray
    ) -> int:
        """Fill *out*, float32 (N, V, D), with the embeddings of N images; compute missing ones.

        Args:
            digests: checksums of the images, ``DIGEST`` bytes each.
            compute: maps row numbers to their embeddings, float32 (n, V, D).

        Returns:
            The number of computed embeddings.
        """
        rows: dict[bytes, list[int]] = {}
        for row, key in enumerate(digests):
            rows.setdefault(key, []).append(row)
        self._fill(rows, out)
        missing = [group[0] for group in rows.values()]
        for start in range(0, len(missing), SHARD):
            chosen = missing[start : start + SHARD]
            embeddings = compute(chosen).cpu().numpy()
            with np.errstate(over="ignore"):
                half = embeddings.astype(np.float16)
            kept = half if np.isfinite(half).all() else embeddings
            self._write([digests[row] for row in chosen], kept)
            for row, embedding in zip(chosen, kept, strict=True):
                out[rows.pop(digests[row])] = embedding
        return len(missing)

    def _fill(self, rows: dict[bytes, list[int]], out: np.ndarray) -> None:
        """Copy stored embeddings to *out* and remove their rows from *rows*."""
        wanted: dict[Path, list[tuple[bytes, int]]] = {}
        for key in rows.keys() & self.index.keys():
            path, place = self.index[key]
            wanted.setdefault(path, []).append((key, place))
        for path, places in wanted.items():
            with reported(f"read the embeddings in {path}"):
                embeddings = safetensors.numpy.load(path.read_bytes())["embeddings"]
            for key, place in places:
                out[rows.pop(key)] = embeddings[place]

    @cached_property
    def index(self) -> dict[bytes, tuple[Path, int]]:
        """The shard and the row of every stored image; damaged shards are removed."""
        index: dict[bytes, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            with reported(f"read the embeddings in {path}"):
                content = path.read_bytes()
            try:
                if _checksum(content) != path.stem:
                    raise ValueError("wrong checksum")
                keys = safetensors.numpy.load(content)["digests"]
            except (ValueError, KeyError, SafetensorError):
                with reported(f"remove the damaged {path}"):
                    path.unlink(missing_ok=True)
                continue
            for place, key in enumerate(keys):
                index.setdefault(key.tobytes(), (path, place))
        return index

    def _write(self, digests: Sequence[bytes], embeddings: np.ndarray) -> None:
        keys = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST)
        shard = {"digests": keys, "embeddings": np.ascontiguousarray(embeddings)}
        content = safetensors.numpy.save(shard)
        path = self.folder / f"{_checksum(content)}.safetensors"
        write_atomically(path, content)
        self.index |= {key: (path, place) for place, key in enumerate(digests)}


@dataclass(frozen=True)
class _Part:
    """Versions of the images of some pools, which one network computes and one store keeps.

    Attributes:
        first: column of the first version.
        keys: checksums of the images, by pool.
    """

    network: Network
    store: EmbeddingStore
    versions: Sequence[Version]
    first: int
    keys: Mapping[str, Sequence[bytes]]


def _digest_of(pools: Mapping[str, np.ndarray]) -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for name in sorted(pools):
        hashed.update(np.ascontiguousarray(pools[name]).data)
    return hashed.hexdigest()


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def embed_data(
    data: TrainingData,
    backbone: Backbone,
    options: TrainOptions,
    views: ViewOptions,
    made: Mapping[str, Sequence[View]],
    progress: Progress | None = None,
    mirrorings: int = 0,
) -> EmbeddedData:
    """Return the data of a run as embeddings.

    Args:
        made: the views of the images of each pool beside the plain image, weak ones first; the
            same ones wherever there are any.
        mirrorings: how many of ``MIRRORINGS`` there are of each image.

    Raises:
        DataError: the backbone returns NaN or infinity.
    """
    device = data.labeled.images.device

    def build() -> Network:
        of_images = backbone.preprocessing
        built = build_network(options, data.shape, backbone.module, {}, "class", of_images)
        return built.to(device).eval()

    network, as_predicted = build(), build()
    _, height, width = data.shape
    augmentation = Augmentation(views, height, width, data.flip)
    pools = data.pools
    digests = {name: [*map(bytes, pool.digests)] for name, pool in pools.items()}

    about = {n: v for n, v in backbone.describe().items() if n not in ("name", "recipe")}
    about |= {"format": FORMAT, "precision": options.precision, "image_shape": list(data.shape)}
    drawn_by = {n: v for n, v in vars(augmentation.options).items() if v is not None}
    base, kinds = embedding_folder(options), list(made["labeled"])
    mirrored: list[Version] = [("identity", dims) for dims in MIRRORINGS[:mirrorings]]
    groups: list[tuple[dict[str, Any], list[Version], Collection[str]]] = [
        ({"views": ["plain"]}, [("identity", ())], pools),
        ({"views": ["mirrored"] * mirrorings}, mirrored, pools),
        ({"views": kinds, "augmentation": drawn_by}, [(kind, ()) for kind in kinds], made),
    ]
    stores: dict[Path, EmbeddingStore] = {}

    def parts_of(names: Collection[str], engine: str, network: Network) -> list[_Part]:
        by = {} if engine == "torch" or options.precision == "float32" else {"engine": engine}
        parts, first = [], 0
        for described, versions, of_pools in groups:
            keys = {name: digests[name] for name in names if name in of_pools}
            if versions and keys:
                content = {**about, **by, **described}
                text = json.dumps(content, sort_keys=True).encode()
                folder = base / hashlib.sha256(text).hexdigest()[:32]
                store = stores.setdefault(folder, EmbeddingStore(folder, content))
                parts.append(_Part(network, store, versions, first, keys))
            first += len(versions)
        return parts

    # In bfloat16 an engine rounds otherwise than the network that predicts, which would change the
    # class of single images; so images that are measured are left to torch.
    fast = [name for name in pools if name in TRAINED or options.precision == "float32"]
    engine = "torch"
    if left := _count(parts_of(fast, engine, network), missing=True):
        fused = parts_of(fast, FusedEncoder.name, network)
        if options.precision == "float32" or _count(fused, missing=True):
            engine = accelerate(network, data.shape, left)
        else:
            engine = FusedEncoder.name
    if engine == "torch":
        fast = list(pools)
    trained = parts_of(fast, engine, network)
    parts = trained + parts_of([n for n in pools if n not in fast], "torch", as_predicted)
    vectors = {}
    for name, pool in pools.items():
        count = 1 + mirrorings + len(kinds) * (name in made)
        vectors[name] = np.empty((len(pool), count, about["dim"]), np.float32)
    try:
        computed = _collect(parts, pools, augmentation, vectors, progress)
    except KeyboardInterrupt as interrupt:
        kept = f"the embeddings of finished images are kept in {base}"
        interrupt.args = (f"{kept}; the same command goes on with the others",)
        raise

    pictured = {}
    for name in TRAINED:
        if name in pools and not pools[name].paths:
            images, labels = pools[name].images, pools[name].labels
            pictured[name] = Pool(images.cpu() if isinstance(images, Tensor) else images, labels)
    mean, std = vector_statistics([vectors[name] for name in TRAINED if name in vectors])
    changed: dict[str, Any] = {
        name: Pool(torch.from_numpy(vectors[name]).to(device), pool.labels, pool.paths)
        for name, pool in pools.items()
    }
    changed |= {"mean": mean, "std": std, "mirrorings": mirrorings}
    changed |= {"weak_versions": mirrorings + kinds.count("weak")}
    return EmbeddedData(
        **{**vars(data), **changed},
        image_shape=data.shape,
        folder=trained[-1].store.folder,
        computed=computed,
        engine=engine,
        digest=_digest_of(vectors),
        pictured=pictured,
    )


def embedding_folder(options: TrainOptions) -> Path:
    """Return the folder of the embeddings of all encoders."""
    return Path(options.embedding_folder or cache_folder() / "embeddings").expanduser()


def _count(parts: Iterable[_Part], *, missing: bool = False) -> int:
    """Return the number of versions, of copies once; *missing*: of those that the stores lack."""
    total = 0
    for part in parts:
        wanted = {key for keys in part.keys.values() for key in keys}
        total += len(part.versions) * len(wanted - part.store.index.keys() if missing else wanted)
    return total


def _collect(
    parts: Sequence[_Part],
    pools: Mapping[str, Pool],
    augmentation: Augmentation,
    vectors: Mapping[str, np.ndarray],
    progress: Progress | None,
) -> int:
    """Fill *vectors*, by pool, from the stores; compute what they lack, and return its number."""
    total = _count(parts)
    done = total - _count(parts, missing=True)

    def advance(views: int) -> None:
        nonlocal done
        done += views
        if progress is not None:
            progress(done, total)

    advance(0)
    computed = 0
    for part in parts:
        for name, keys in part.keys.items():
            compute = _computer(part, augmentation, pools[name].images, keys, advance)
            out = vectors[name][:, part.first : part.first + len(part.versions)]
            computed += part.store.collect(keys, compute, out)
    return computed


def _computer(
    part: _Part,
    augmentation: Augmentation,
    images: ImageRows,
    keys: Sequence[bytes],
    advance: Advance,
) -> Callable[[Sequence[int]], Tensor]:
    """Return a function that computes the embeddings of some rows, one version after the other."""
    network, side = part.network, part.network.resolution
    pixels = images.shape[2] * images.shape[3] if side is None else side * side
    batch = max(1, (PIXELS_CPU if images.device.type == "cpu" else PIXELS) // pixels)

    @torch.no_grad()
    def compute(rows: Sequence[int]) -> Tensor:
        chosen = images[torch.tensor(rows, device=images.device)]
        numbers = [int.from_bytes(keys[row], "little") for row in rows]
        seeds = [derive_seed(0, "embedding", number) for number in numbers]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        versions = []
        for kind, dims in part.versions:
            drawn = [augmentation.draw(kind, 1, generator) for generator in generators]
            view = augmentation.make(kind, chosen.flip(dims) if dims else chosen, drawn)
            features = []
            for few in torch.split(view, batch):
                features.append(network(few))
                advance(len(few))
            versions.append(torch.cat(features))
        embeddings = torch.stack(versions, 1)
        if not bool(embeddings.isfinite().all()):
            low = network.precision != "float32"
            cure = "--precision float32" if low else "another network"
            raise DataError(f"the backbone returns NaN or infinity for some images; use {cure}")
        return embeddings

    return compute
