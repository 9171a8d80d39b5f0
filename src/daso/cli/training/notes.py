"""Notes about a training: options without effect, numbers that are not adjusted, few labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from daso.balance import balanced_by
from daso.compose import Recipe
from daso.constraints import flag
from daso.data.open import NAMES
from daso.data.training_data import TrainingData
from daso.files import Row
from daso.nets.backbone import Backbone
from daso.train.config import RunConfig

STRONG_VIEW_OPTIONS = ("strong_operations", "strong_magnitude", "strong_probability", "cutout")
FEW_LABELS = 100
"""Labels per class, on average, below which a pretrained encoder is recommended."""


def not_adjusted(config: RunConfig, data: Row) -> str | None:
    """Return why the numbers of a run are not logit-adjusted; None if they are."""
    balancing = balanced_by(config.to_dict(), data)
    if not balancing:
        return None
    return (
        f"{config.method} was balanced during training ({', '.join(balancing)}); logit-adjusted "
        f"numbers are not shown, because they would correct the bias a second time"
    )


def idle_options(config: RunConfig, given: Collection[str]) -> list[str]:
    """Return a note for each option that was given and certainly has no effect."""
    recipe = Recipe.parse(config.method)
    reasons = {name: reason for names, reason in _idle_in_run(config, recipe) for name in names}
    reasons |= recipe.idle_options(config.method_options)
    return [f"{flag(n)} has no effect: {reason}" for n, reason in reasons.items() if n in given]


def _idle_in_run(config: RunConfig, recipe: Recipe) -> Iterator[tuple[Sequence[str], str]]:
    learner, split = recipe.method, config.split
    if "strong" not in {*learner.labeled_views, *learner.unlabeled_views}:
        yield STRONG_VIEW_OPTIONS, f"{learner.__name__} has no strong views"
    if not learner.unlabeled_views:
        yield ("unlabeled_ratio",), f"{learner.__name__} does not use unlabeled images"
    if config.augmentation.crop == "resized":
        yield ("crop_padding",), "it requires --crop pad"
    if split.unlabeled_head is None:
        reason = "it requires --unlabeled-head; all unlabeled images of the source are used"
        yield ("gamma_unlabeled", "unlabeled_shape"), reason
    elif split.unlabeled_shape == "uniform":
        yield ("gamma_unlabeled",), "--unlabeled-shape uniform gives all classes as many images"


def pretrained_may_help(
    config: RunConfig, data: TrainingData, backbone: Backbone | None
) -> str | None:
    """Return a recommendation of a pretrained encoder for few labels of own images, or None."""
    labels, classes = len(data.labeled), len(data.class_names)
    is_pretrained = backbone is not None or config.train.weights is not None
    has_many_labels = labels >= FEW_LABELS * classes
    if config.source in NAMES or data.are_vectors or is_pretrained or has_many_labels:
        return None
    return (
        f"training from scratch on {labels:,} labels for {classes} classes; a pretrained encoder "
        f"usually does much better on few labels, and takes minutes (--network timm:NAME --freeze, "
        f"see docs/backbones.md)"
    )
