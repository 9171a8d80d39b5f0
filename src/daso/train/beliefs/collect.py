"""Collect what a model believes about its images, for reports.

``beliefs.safetensors`` holds arrays and, under the key ``beliefs`` of its header, a JSON object; no
pickle. It depends only on the state of the training, at the ``step`` in the header, and on the
data, so a resumed run writes the same file. Everything is computed by the moving-average network,
on plain images, in evaluation mode.

For n images of the unlabeled pool (all up to 10,000, else a seeded sample):

* ``pool.index``, ``pool.source``: int32 (n,), index in the pool, and in the images of the source;
* ``pool.truth``: int16 (n,), class where known, else -1; never used in training;
* ``pool.linear``: int16 (n, 2), the two likeliest classes by the head that classifies, with
  ``pool.linear_probs``, float16 (n, 2);
* ``pool.semantic``: the same by the similarity to prototypes, softmax(cosine / temperature), of
  the network's features if the method has prototypes, else of those that the head classifies;
* ``pool.final``: int16 (n,), the pseudo-label, which is the linear guess after the method's
  refiners, with its probability ``pool.confidence``, float16 (n,).

For c candidates among them, which galleries show:

* ``shown.place``: int32 (c,), rows of the arrays above;
* ``shown.near``: int32 (c, 3), indices of the labeled images nearest by cosine, -1 if missing, with
  ``shown.near_label``, int16 (c, 3), and ``shown.near_cosine``, float16 (c, 3);
* ``confident``, ``disagreeing``, ``uncertain``, ``next``: int32, rows of ``shown``, by gallery;
  ``next.*`` are the parts of the score of ``next``;
* ``thumbnails.bytes``: uint8, PNG (up to 32 pixels) or JPEG files of at most 64 pixels, joined,
  with ``thumbnails.offsets``, int64 (t + 1,), ``thumbnails.pool``, int8 (t,), 0 unlabeled and 1
  labeled, and ``thumbnails.index``, int32 (t,): at most 1,600 files and 5 MB. Embeddings have the
  pictures of their images, other vectors none.

For a map: ``map.features`` float16, principal components of unit-length features, of ``map.place``
(at most 1,500 rows of the pool), ``map.labeled`` float16 with ``map.label`` (at most 300 labeled
images), and ``map.prototypes`` (K). For calibration, of the test images: ``test.label``,
``test.answer`` int16, ``test.confidence`` float32, and ``test.adjusted_*`` after post-hoc logit
adjustment; likewise ``holdout.*``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from daso.data.images.pool import Pool
from daso.data.training_data import TrainingData
from daso.evaluate.metrics import adjust_logits
from daso.evaluate.predict import represent_in_batches
from daso.files import save_arrays
from daso.refine.daso import DASO
from daso.refine.guess import Guess, Refiner
from daso.refine.queue import PrototypeQueue
from daso.train.beliefs.label_next import (
    Floats,
    Indices,
    best_per_group,
    disagreements,
    rank_to_label,
)
from daso.train.beliefs.thumbnails import pack_thumbnails
from daso.train.encoder.embeddings import EmbeddedData
from daso.train.evaluation import answers_of, measured_pools
from daso.train.step.sampling import derive_seed
from daso.train.step.state import Training

Arrays = dict[str, npt.NDArray[Any]]

FILE = "beliefs.safetensors"
VERSION = 1
MOST_IMAGES = 10_000
"""Images whose beliefs are computed: about the cost of one evaluation on a benchmark."""
MOST_ON_MAP = 1500
MOST_LABELED_ON_MAP = 300
COMPONENTS = 32
SHOWN = 360
"""Images of a gallery of all classes at most."""
PER_CLASS = 12
PER_PAIR = 6
DISAGREEING = 120
LABEL_NEXT = 100
NEIGHBOURS = 3
TEMPERATURE = 0.05
"""Temperature of the similarity for methods without one: that of DASO."""
CHUNK = 1024


def write_beliefs(
    folder: Path, training: Training, data: TrainingData, seed: int, step: int
) -> None:
    """Write ``beliefs.safetensors`` into a run folder, atomically."""
    arrays, about = collect_beliefs(training, data, seed)
    save_arrays(folder / FILE, arrays, "beliefs", {"version": VERSION, "step": step, **about})


def collect_beliefs(
    training: Training, data: TrainingData, seed: int
) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the JSON object of ``beliefs.safetensors``."""
    network = training.average.network
    random = np.random.default_rng(derive_seed(seed, "beliefs", 0))
    arrays: Arrays = {}
    answers = answers_of(training, data)
    for name, pool in measured_pools(data).items():
        arrays |= _answers(name, answers[name], pool, data.class_counts)
    about: dict[str, Any] = {"head": network.output, "labeled": len(data.labeled)}
    if data.unlabeled is None:
        return arrays, about

    labels = data.labeled.labels.cpu().numpy()
    kept = _spread(labels, random)
    index = _sample(len(data.unlabeled), MOST_IMAGES, random)
    represent = partial(training.represent, network)
    features = _features(represent, data.unlabeled, index)
    linear = network.classify(features, network.output).softmax(1)
    if network.readout is not None and _queue(training) is not None:
        # A queue holds features of the network.
        represent = partial(represent_in_batches, network, encode=network.encode)
        features = _features(represent, data.unlabeled, index)
    labels, labeled = labels[kept], _features(represent, data.labeled, kept)
    prototypes, temperature, origin = _prototypes(training, labeled, labels, len(data.class_counts))
    semantic = (_unit(features) @ _unit(prototypes).T / temperature).softmax(1)
    final = _refine(training, linear, features, torch.from_numpy(index)).cpu().numpy()
    beliefs = linear.cpu().numpy(), semantic.cpu().numpy()
    chosen, shown = _choose(*beliefs, final, features.cpu().numpy(), data.class_counts)

    own = len(data.split.unlabeled) == len(data.unlabeled)
    near, cosine = _nearest(features[torch.from_numpy(shown)], labeled)
    known = near >= 0
    arrays |= {
        "pool.index": index.astype(np.int32),
        "pool.source": (data.split.unlabeled[index] if own else index).astype(np.int32),
        "pool.truth": data.unlabeled.labels.cpu().numpy()[index].astype(np.int16),
        **_top_two("pool.linear", beliefs[0]),
        **_top_two("pool.semantic", beliefs[1]),
        "pool.final": final.argmax(1).astype(np.int16),
        "pool.confidence": final.max(1).astype(np.float16),
        "shown.place": shown.astype(np.int32),
        "shown.near": np.where(known, kept[near], -1).astype(np.int32),
        "shown.near_label": np.where(known, labels[near], -1).astype(np.int16),
        "shown.near_cosine": cosine.astype(np.float16),
        **chosen,
        **_map(features, labeled, labels, prototypes, random),
    }
    neighbors = np.unique(arrays["shown.near"][known])
    pictured = data.pictured if isinstance(data, EmbeddedData) else {}
    unlabeled = pictured.get("unlabeled", data.unlabeled)
    with_label = pictured.get("labeled", data.labeled)
    packed = pack_thumbnails(((0, unlabeled, index[shown]), (1, with_label, neighbors)))
    if len(packed["index"]):
        arrays |= {f"thumbnails.{name}": values for name, values in packed.items()}
    return arrays, about | {
        "unlabeled": len(data.unlabeled),
        "from_training_images": own,
        "prototypes": origin,
        "temperature": temperature,
        "blend_weight": training.method.describe().get("blend_weight"),
        "threshold": getattr(training.method, "threshold", None),
        "paths": _paths(data.unlabeled, index[shown]),
        "labeled_paths": _paths(data.labeled, neighbors),
    }


def _answers(name: str, logits: Tensor, pool: Pool, class_counts: Indices) -> Arrays:
    arrays: Arrays = {f"{name}.label": pool.labels.cpu().numpy().astype(np.int16)}
    adjusted = torch.from_numpy(adjust_logits(logits.numpy(), class_counts))
    for prefix, values in ((f"{name}.", logits), (f"{name}.adjusted_", adjusted)):
        confidence, answer = values.double().softmax(1).max(1)
        arrays[f"{prefix}answer"] = answer.numpy().astype(np.int16)
        arrays[f"{prefix}confidence"] = confidence.numpy().astype(np.float32)
    return arrays


def _sample(size: int, most: int, random: np.random.Generator) -> Indices:
    if size <= most:
        return np.arange(size)
    return np.sort(random.choice(size, most, replace=False))


def _spread(labels: Indices, random: np.random.Generator) -> Indices:
    """Return the indices of the labeled images, at most about 10,000, balanced over the classes."""
    shuffled = random.permutation(len(labels))
    share = max(1, MOST_IMAGES // len(np.unique(labels)))
    by_class = best_per_group(labels[shuffled], np.zeros(len(labels)), share)
    return np.sort(shuffled[by_class])


def _features(represent: Callable[..., Iterator[Tensor]], pool: Pool, index: Indices) -> Tensor:
    return torch.cat(list(represent(pool.images, index=torch.from_numpy(index))))


def _unit(features: Tensor) -> Tensor:
    """Return features of unit length; those of a diverged training that overflow have none."""
    return F.normalize(features.nan_to_num(), dim=1, eps=1e-8)


def _queue(training: Training) -> PrototypeQueue | None:
    return next((m for m in training.method.modules() if isinstance(m, PrototypeQueue)), None)


def _prototypes(
    training: Training, labeled: Tensor, labels: Indices, num_classes: int
) -> tuple[Tensor, float, str]:
    """Return prototypes (K, D), temperature and origin: method, or means of labeled features."""
    modules = training.method.modules()
    temperature = next(
        (m.prototype_temperature for m in modules if isinstance(m, DASO)), TEMPERATURE
    )
    queue = _queue(training)
    if queue is not None and int(queue.seen.min()) > 0:
        return queue.prototypes, temperature, "method"
    one_hot = F.one_hot(torch.from_numpy(labels), num_classes).to(labeled)
    return one_hot.T @ labeled / one_hot.sum(0).clamp(min=1)[:, None], temperature, "means"


@torch.no_grad()
def _refine(training: Training, linear: Tensor, features: Tensor, index: Tensor) -> Tensor:
    """Refine a linear guess by copies of the method's refiners, whose state must not change."""
    method = training.method
    members = (getattr(method, name, None) for name in ("alignment", "refine"))
    refiners = [member for member in members if isinstance(member, Refiner)]
    index, step = index.to(linear.device), torch.tensor(training.step, device=linear.device)
    parts = []
    for rows in torch.split(torch.arange(len(linear), device=linear.device), CHUNK):
        guess = Guess(linear[rows], features[rows], index[rows], step, {"linear": linear[rows]})
        for refiner in copy.deepcopy(refiners):
            guess = refiner(guess)
        parts.append(guess.probs)
    return torch.cat(parts)


def _choose(
    linear: Floats, semantic: Floats, final: Floats, features: Floats, class_counts: Indices
) -> tuple[Arrays, Indices]:
    """Return the galleries, as rows of the shown images, and the rows of these in the pool."""
    label, confidence = final.argmax(1), final.max(1)
    rarest = np.argsort(class_counts, kind="stable")[:SHOWN]
    rows = np.flatnonzero(np.isin(label, rarest))
    per_class = max(1, min(PER_CLASS, SHOWN // len(class_counts)))
    ranking = rank_to_label(linear, semantic, features, class_counts, LABEL_NEXT)
    galleries = {
        "confident": rows[best_per_group(label[rows], confidence[rows], per_class)],
        "disagreeing": disagreements(linear, semantic, PER_PAIR, DISAGREEING),
        "uncertain": rows[best_per_group(label[rows], -confidence[rows], per_class)],
        "next": ranking.place,
    }
    # Thumbnails are packed in this order while they fit: what to label next comes first.
    ordered = np.concatenate(
        [galleries[name] for name in ("next", "disagreeing", "confident", "uncertain")]
    )
    shown = ordered[np.sort(np.unique(ordered, return_index=True)[1])]
    position = {int(row): place for place, row in enumerate(shown)}
    arrays: Arrays = {
        name: np.array([position[int(row)] for row in places], dtype=np.int32)
        for name, places in galleries.items()
    }
    for name in ("score", "uncertainty", "rarity", "novelty"):
        arrays[f"next.{name}"] = getattr(ranking, name).astype(np.float32)
    for name in ("likely", "other"):
        arrays[f"next.{name}"] = getattr(ranking, name).astype(np.int16)
    return arrays, shown


def _top_two(name: str, probs: Floats) -> Arrays:
    order = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(probs, order, axis=1)
    return {name: order.astype(np.int16), f"{name}_probs": top.astype(np.float16)}


def _nearest(features: Tensor, labeled: Tensor) -> tuple[Indices, Floats]:
    """Return indices and cosines (N, 3) of the nearest labeled features; -1 and 0 where missing."""
    count = min(NEIGHBOURS, len(labeled))
    cosine, place = (_unit(features) @ _unit(labeled).T).topk(count, dim=1)
    missing = (0, NEIGHBOURS - count)
    return F.pad(place, missing, value=-1).cpu().numpy(), F.pad(cosine, missing).cpu().numpy()


def _map(
    features: Tensor,
    labeled: Tensor,
    labels: Indices,
    prototypes: Tensor,
    random: np.random.Generator,
) -> Arrays:
    """Return principal components of the unit features of some images and of the prototypes."""
    place = _sample(len(features), MOST_ON_MAP, random)
    with_label = _sample(len(labeled), MOST_LABELED_ON_MAP, random)
    parts = (features[torch.from_numpy(place)], labeled[torch.from_numpy(with_label)], prototypes)
    points = _unit(torch.cat(parts)).cpu().double().numpy()
    points -= points.mean(0)
    directions = np.linalg.svd(points, full_matrices=False)[2][:COMPONENTS]
    reduced = (points @ directions.T).astype(np.float16)
    ends = np.cumsum([len(place), len(with_label)])
    return {
        "map.place": place.astype(np.int32),
        "map.features": reduced[: ends[0]],
        "map.labeled": reduced[ends[0] : ends[1]],
        "map.label": labels[with_label].astype(np.int16),
        "map.prototypes": reduced[ends[1] :],
    }


def _paths(pool: Pool, index: Indices) -> dict[str, str]:
    # Absolute, so that lists of images to label are of use in any folder.
    named = map(int, index) if pool.paths else ()
    return {str(i): str(Path(pool.paths[i]).absolute()) for i in named}
