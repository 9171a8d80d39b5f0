"""Notes about a training: options without effect, numbers that are not adjusted, few labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from daso.balance import balanced_by
from daso.compose import Recipe
from daso.data.images.image_file import ImageFile
from daso.data.places import NAMES, is_named
from daso.data.source import Source
from daso.data.split import make_split
from daso.errors import flag
from daso.files import Row
from daso.train.config import RunConfig
from daso.train.prepare import Prepared
from daso.train.view_options import VectorViewOptions

STRONG_VIEW_OPTIONS = ("strong_operations", "strong_magnitude", "strong_probability", "cutout")
UNTRAINED = (
    *("batch", "unlabeled_ratio", "labeled_sampling", "learning_rate", "backbone_rate"),
    *("layer_decay", "optimizer", "schedule", "momentum", "weight_decay", "ema_decay"),
    *("recompute", "compile", "cuda_graph", "evaluate_every", "save_minutes", "log_every"),
    *("on_divergence", "rollbacks", "deploy", "patience"),
)
"""Options of training steps, without effect if there are none."""
FROZEN = (
    *("weak_versions", "strong_versions", "embedding_network", "embedding_folder"),
    *(field.name for field in dataclasses.fields(VectorViewOptions)),
)
"""Options of a frozen encoder's embeddings."""
FEW_LABELS = 100
"""Labels per class, on average, below which a pretrained encoder is recommended."""


def notes_on_data(prepared: Prepared) -> Iterator[str]:
    """Yield notes on batches larger than the data, and on what cannot be measured."""
    data, train, batches = prepared.data, prepared.config.train, prepared.batches
    sizes = [("labeled", data.labeled, train.batch)]
    if batches.unlabeled_views and data.unlabeled is not None:
        sizes.append(("unlabeled", data.unlabeled, batches.unlabeled_batch))
    for name, pool, batch in sizes:
        if len(pool) < batch and prepared.total_steps:
            are = "image is" if len(pool) == 1 else "images are"
            yield f"{len(pool)} {name} {are} fewer than a batch of {batch}; some are repeated"
    choices = {"--patience": train.patience, "--deploy best": train.deploy == "best"}
    for option, is_chosen in choices.items():
        if is_chosen and data.holdout is None and prepared.total_steps:
            yield f"{option} has no effect without a hold-out; {to_hold_out(prepared, 1)}"
    if data.test is None and data.holdout is None:
        yield f"no test or hold-out images, so nothing is measured; {to_hold_out(prepared, 1)}"
    elif data.test is None and data.holdout is not None:
        held_out = set(data.holdout.labels.tolist())
        names = [name for k, name in enumerate(data.class_names) if k not in held_out]
        have, are, them = ("has", "is", "it") if len(names) == 1 else ("have", "are", "them")
        missing = (
            f"; {', '.join(names)} {have} too few labels to hold any out and {are} not measured "
            f"(daso validate measures {them} from two labels)"
        )
        measured = f"no test images; measured on {len(data.holdout)} held-out labeled images"
        yield measured + (missing if names else "")


def to_hold_out(prepared: Prepared, images: int) -> str:
    """Return how to hold out so many labeled images with at least half of each class left."""
    data, classes = prepared.data, len(prepared.data.class_names)
    counts, each = data.class_counts, -(-images // classes)
    if data.holdout is not None:
        if not len(data.split.holdout):
            return f"give {images} or more labeled validation images, not {len(data.holdout)}"
        held = data.holdout.labels.cpu().numpy()
        counts = counts + np.bincount(held, minlength=classes)
    if prepared.config.split.labeled_head is not None or counts.min() >= 2 * each:
        return f"--holdout {each * classes} sets {each} of each class aside"
    rarest = data.class_names[int(counts.argmin())]
    return (
        f"label more images and give {images} or more for validation (--val FOLDER, or as "
        f"docs/data.md says); {rarest}, with {counts.min()} labeled, "
        f"cannot spare {each}"
    )


def stripped_classes(config: RunConfig, source: Source) -> list[str]:
    """Return notes if a hold-out is smaller than asked for, or takes over half of a class."""
    if config.split.labeled_head is not None or not config.split.holdout:
        return []
    split, classes = make_split(source, config.split, config.train.seed), len(source.class_names)
    counts = np.bincount(source.train.labels, minlength=classes)
    left = np.bincount(source.train.labels[split.labeled], minlength=classes)
    stripped = [k for k in np.argsort(counts, kind="stable") if 2 * left[k] < counts[k]]
    notes = []
    if (held := len(split.holdout)) < config.split.holdout:
        rarest = source.class_names[int(counts.argmin())]
        notes.append(
            f"--holdout {config.split.holdout} sets {held} aside: every class spares the same "
            f"number, and {rarest}, with {counts.min()} labeled, cannot"
        )
    if not stripped:
        return notes
    names = ", ".join(f"{left[k]} of {counts[k]} of {source.class_names[k]}" for k in stripped)
    each = counts.min() // 2
    instead = f"--holdout {each * classes} leaves at least half of each class"
    if not each:
        instead = "daso validate measures all labeled images and sets none aside for good"
    few = f"--holdout {config.split.holdout} leaves few labels to learn from: {names}; {instead}"
    return [*notes, few]


def not_adjusted(config: RunConfig, data: Row) -> str | None:
    """Return why the numbers of a run are not logit-adjusted; None if they are."""
    balancing = balanced_by(config.to_dict(), data)
    if not balancing:
        return None
    return (
        f"{config.method} was balanced during training ({', '.join(balancing)}); logit-adjusted "
        f"numbers are not shown, because they would correct the bias a second time"
    )


def idle_options(
    config: RunConfig, given: Collection[str], source: Source | None = None
) -> list[str]:
    """Return a note for each option that was given and certainly has no effect."""
    recipe = Recipe.parse(config.method)
    idle = [*_idle_in_run(config, recipe), *_idle_in_reading(config, source)]
    reasons = {name: reason for names, reason in idle for name in names}
    reasons |= recipe.idle_options(config.method_options)
    return [f"{flag(n)} has no effect: {reason}" for n, reason in reasons.items() if n in given]


def _idle_in_run(config: RunConfig, recipe: Recipe) -> Iterator[tuple[Sequence[str], str]]:
    learner, split, train = recipe.method, config.split, config.train
    if train.steps == 0:
        yield UNTRAINED, "there are no training steps"
    if not train.freeze:
        yield FROZEN, "only --freeze embeds images, as vectors"
    elif train.embedding_network in ("probe", "linear"):
        yield ("backbone_rate",), "--freeze does not train the encoder"
    if train.on_divergence != "rollback":
        yield ("rollbacks",), "it requires --on-divergence rollback"
    if config.augmentation.strong_operations == 0:
        yield ("strong_magnitude", "strong_probability"), "--strong-operations is 0"
    if "strong" not in {*learner.labeled_views, *learner.unlabeled_views}:
        idle = (*STRONG_VIEW_OPTIONS, *["strong_versions"] * train.freeze)
        yield idle, f"{learner.__name__} has no strong views"
    if not learner.unlabeled_views:
        yield ("unlabeled_ratio",), f"{learner.__name__} does not use unlabeled images"
    if config.augmentation.crop == "resized":
        yield ("crop_padding",), "it requires --crop pad"
    if split.labeled_head is None:
        yield ("gamma_labeled",), "it requires --labeled-head; all labeled images are used"
    if split.unlabeled_head is None:
        reason = "it requires --unlabeled-head and a source that has no unlabeled images of its own"
        yield ("gamma_unlabeled", "unlabeled_shape"), reason
    elif split.unlabeled_shape == "uniform":
        yield ("gamma_unlabeled",), "--unlabeled-shape uniform gives all classes as many images"


def _idle_in_reading(
    config: RunConfig, source: Source | None
) -> Iterator[tuple[Sequence[str], str]]:
    if config.cache is None:
        yield ("memory",), "it requires --cache"
    elif source is not None:
        parts = source.parts().values()
        if not any(isinstance(part.images, ImageFile) for part in parts):
            yield ("cache", "memory"), "these images are stored decoded"
    if not is_named(config.source):
        yield ("download",), f"{config.source} is not fetched"


def pretrained_may_help(prepared: Prepared) -> Iterator[str]:
    """Yield a recommendation of a pretrained encoder for few labels of own images."""
    data, config = prepared.data, prepared.config
    labels, classes = len(data.labeled), len(data.class_names)
    is_pretrained = prepared.backbone is not None or config.train.weights is not None
    has_many_labels = labels >= FEW_LABELS * classes
    if not (config.source in NAMES or data.are_vectors or is_pretrained or has_many_labels):
        yield (
            f"training from scratch on {labels:,} labels for {classes} classes; a pretrained "
            f"encoder usually does much better on few labels, and takes minutes (--network "
            f"timm:NAME --freeze; EfficientNet-Lite0 comes by pip, without the hub: see "
            f"docs/backbones.md)"
        )
