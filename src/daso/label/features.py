"""Features of all images by which a session compares them, and their cache on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from daso.data.images.decode import Picture, decode_picture, read_header
from daso.data.images.encoded import WORKERS, no_size_warnings
from daso.data.images.layout import Layout, choose_layout
from daso.data.read_listing import Seen
from daso.errors import DataError, RunError
from daso.files import make_folder, read_arrays, save_arrays
from daso.label.images import Embedding, Flags, Images, Progress
from daso.nets.backbone import Backbone, checksum
from daso.nets.encoders.patches import FILTERS, IMAGES, LARGEST, SIZES, PatchEncoder, geometries
from daso.nets.engines import accelerate
from daso.nets.network import Network
from daso.readout.projection import MOST_ROWS, Projection
from daso.train.encoder.build import build_network
from daso.train.model import Model
from daso.train.options import TrainOptions

Encode = Callable[[Tensor], Tensor]

DIMENSIONS = 128
HEADERS = 500
"""Images whose size and color decide how all are decoded."""
BATCH = 64
FORMAT, SEED = 1, 0
UNREADABLE = "none of the images can be read; look at them with daso data check"


@dataclass(frozen=True)
class Encoder:
    """How an image becomes features.

    Attributes:
        layout: of the decoded images.
        encode: maps uint8 images (B, C, H, W) to features, float (B, D).
        projected: whether these are centered already, and few.
        about: JSON values that change when the features do.
    """

    kind: str
    layout: Layout
    encode: Encode
    projected: bool
    about: Any


def of_run(model: Model) -> Encoder:
    """Return the encoder of a trained run: what its head classifies."""
    channels, height, width = model.image_shape
    layout = Layout(channels, height, width, height if height == width else None)
    network = model.network
    about = {"run": checksum(network.state_dict())}
    has_readout = network.readout is not None
    return Encoder("the trained network", layout, network.represent, has_readout, about)


def of_backbone(backbone: Backbone, options: TrainOptions, count: int = 0) -> Encoder:
    """Return a pretrained encoder, frozen, for some number of images."""
    side = backbone.preprocessing.resolution or 224
    channels = len(backbone.preprocessing.mean or (0, 0, 0))
    shape, options = (channels, side, side), replace(options, precision="float32")
    network: Network = build_network(
        options, shape, backbone.module, {}, "class", backbone.preprocessing
    ).eval()
    accelerate(network, shape, count)
    layout = Layout(channels, side, side, side)
    return Encoder(backbone.name, layout, network, False, backbone.describe())


def of_patches(images: Images, progress: Progress | None = None) -> Encoder:
    """Return an encoder of image patches, learned from some of the images without labels."""
    random = np.random.default_rng(SEED)
    layout = _layout(images, random)
    sample = random.permutation(len(images))[:IMAGES]
    decoded = []
    for _, pixels, readable in _decoded(images, layout, np.sort(sample)):
        if readable.any():
            decoded.append(pixels[readable])
        if progress is not None:
            progress(0, len(images))
    if not decoded:
        raise DataError(UNREADABLE)
    channels, height, width = decoded[0].shape[1:]
    encoder = PatchEncoder(channels, geometries(height, width)).eval()
    encoder.learn(map(torch.from_numpy, decoded), torch.Generator().manual_seed(SEED))
    about = {"patches": [channels, height, width, SEED, encoder.dim, *SIZES, FILTERS]}
    return Encoder("image patches, without a network", layout, encoder, False, about)


def _layout(images: Images, random: np.random.Generator) -> Layout:
    """Choose one shape by some of the images, small enough for patches."""
    headers = []
    with no_size_warnings():
        for number in random.permutation(len(images))[: 2 * HEADERS]:
            try:
                headers.append(read_header(images.read(int(number))))
            except DataError:
                continue
            if len(headers) == HEADERS:
                break
    if not headers:
        raise DataError(UNREADABLE)
    layout = choose_layout(headers)
    # The image that has another size than the sample is resized like all others.
    side = min(LARGEST, max(layout.height, layout.width))
    is_square = layout.height == layout.width
    return Layout(layout.channels, side, side, side) if is_square or layout.square else layout


def embed(images: Images, encoder: Encoder, progress: Progress | None = None) -> Embedding:
    """Compute the features of all images; those that cannot be read have none."""
    count, done = len(images), 0
    spread = np.sort(np.random.default_rng(0).permutation(count)[:MOST_ROWS])
    bad: list[int] = []
    seen = Seen()

    def rows(chosen: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        nonlocal done
        for numbers, pixels, readable in _decoded(images, encoder.layout, chosen, seen):
            bad.extend(numbers[~readable].tolist())
            if readable.any():
                with torch.no_grad():
                    found = encoder.encode(torch.from_numpy(pixels[readable])).float()
                yield numbers[readable], found
            done += len(numbers)
            if progress is not None:
                progress(done, count)

    parts = list(rows(spread))
    if not parts:
        raise DataError(UNREADABLE)
    project: Encode = nn.Identity()
    if not encoder.projected:
        project = Projection.fit(torch.cat([part for _, part in parts]), DIMENSIONS)
    features = np.zeros((count, project(parts[0][1]).shape[1]), dtype=np.float16)
    rest = np.setdiff1d(np.arange(count), spread)
    for numbers, found in itertools.chain(parts, rows(rest)):
        features[numbers] = project(found).numpy()
    notes = tuple(seen.notes(images.listing))
    return Embedding(features, encoder.kind, tuple(sorted(bad)), notes)


def _decoded(
    images: Images, layout: Layout, chosen: npt.NDArray[np.int64], seen: Seen | None = None
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], Flags]]:
    """Yield some images at a time: numbers, pixels (n, C, H, W), and which could be read."""
    channels = layout.channels or 3
    shape = channels, layout.height, layout.width

    def one(number: int) -> Picture | None:
        try:
            found = decode_picture(images.read(number), channels=channels, size=layout.square)
        except (DataError, OSError):
            return None
        return found if found.pixels.shape == shape else None

    with no_size_warnings(), ThreadPoolExecutor(WORKERS) as executor:
        for at in range(0, len(chosen), BATCH):
            numbers = chosen[at : at + BATCH]
            found = list(executor.map(one, numbers.tolist()))
            for number, picture in zip(numbers.tolist(), found, strict=True):
                if picture is not None and seen is not None:
                    name, is_colored = images.name(number), not picture.grey
                    seen.add(name, is_colored=is_colored, several=picture.several)
            readable = np.array([picture is not None for picture in found])
            empty = np.zeros(shape, dtype=np.uint8)
            yield numbers, np.stack([empty if p is None else p.pixels for p in found]), readable


def cached(
    path: Path,
    images: Images,
    encoder: Encoder,
    progress: Progress | None = None,
    notice: Callable[[str], None] = lambda message: None,
) -> Embedding:
    """Return features from a file, or compute and keep them there.

    A file of other images, or of another encoder, is replaced. *notice* is called with a message if
    they cannot be kept.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, DIMENSIONS, encoder.about]).encode())
    for text in images.origins():
        digest.update(f"{text}\n".encode(errors="backslashreplace"))
    key = digest.hexdigest()
    try:
        arrays, about = read_arrays(path, "features")
        if about["key"] == key:
            unreadable = tuple(map(int, about["unreadable"]))
            notes = tuple(map(str, about.get("notes", ())))
            return Embedding(arrays["features"], encoder.kind, unreadable, notes)
    except (OSError, KeyError, ValueError, TypeError):
        pass  # there is none, or it is damaged
    embedding = embed(images, encoder, progress)
    about = {"key": key, "unreadable": embedding.unreadable, "notes": embedding.notes}
    try:
        make_folder(path.parent)
        save_arrays(path, {"features": embedding.features}, "features", about)
    except RunError as error:
        notice(f"note: {error}; the images are compared again at the next start")
    return embedding
