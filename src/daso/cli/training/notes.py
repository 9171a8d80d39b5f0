"""Notes about a command: options without effect, numbers that are not adjusted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from daso.balance import balancing_parts
from daso.compose import Recipe
from daso.data.open import NAMES
from daso.data.training_data import TrainingData
from daso.methods.mean_teacher import MeanTeacher
from daso.methods.usadtm import USADTM
from daso.nets.backbone import Backbone
from daso.plans.crest import CReSTPlus
from daso.refine.align import Align
from daso.refine.daso import DASO
from daso.train.config import RunConfig

STRONG = ("strong_operations", "strong_magnitude", "strong_probability", "cutout")
PROTOTYPES = (
    "queue_length",
    "prototype_temperature",
    "balanced_queue",
    "queue_encoder",
    "queue_batch_statistics",
    "warmup_steps",
)
FEW = 100
"""Labels a class, on average, up to which a pretrained encoder is recommended."""


def not_adjusted(config: RunConfig) -> str | None:
    """Return why a run's numbers are not logit-adjusted, or None where they are."""
    balancing = balancing_parts(config.method, config.train.labeled_sampling)
    if not balancing:
        return None
    return (
        f"{config.method} has balanced its classifier in training ({', '.join(balancing)}): there is no "
        f"logit-adjusted number, which would correct a second time"
    )


def idle_options(config: RunConfig, given: Collection[str]) -> list[str]:
    """Return, for each option that was given and changes nothing in a training, that it does not, and why.

    Only what the other options decide for certain is looked at.

    Args:
        config: of the training.
        given: names of options, see ``options.given_options``.
    """
    reasons = {name: reason for names, reason in _idle(config) for name in names}
    return [
        f"--{name.replace('_', '-')} has no effect: {reason}"
        for name, reason in reasons.items()
        if name in given
    ]


def late_blend(config: RunConfig, steps: int) -> str | None:
    """Return that DASO blends no pseudo-labels for most of a training, or None where it does or is not asked to.

    Args:
        config: resolved, every hyper-parameter worked out.
        steps: of the training, or of the stage of the run in which DASO takes part.
    """
    options = config.method_options
    if DASO not in Recipe.parse(config.method).refiners or options["blend"] == "linear":
        return None
    waits = {"warmup_steps": options["warmup_steps"]}
    if options["blend"] == "distribution":
        waits["histogram_period"] = options["histogram_period"]
    begin = max(waits.values())
    if 2 * begin <= steps:
        return None
    name = max(waits, key=lambda name: waits[name])
    when = "never" if begin >= steps else f"only from step {begin:,} on"
    flag = f"--{name.replace('_', '-')}"
    return (
        f"DASO blends pseudo-labels {when} in a training of {steps:,} steps ({flag} {begin:,}): train longer, or lower "
        f"{flag}, to {max(1, steps // 10):,} say"
    )


def from_nothing(config: RunConfig, data: TrainingData, backbone: Backbone | None) -> str | None:
    """Return that a pretrained encoder would go further on the few labels of people's own images, or None."""
    labels, classes = len(data.labeled), len(data.class_names)
    pretrained = backbone is not None or config.train.weights is not None
    if config.source in NAMES or data.are_vectors or pretrained or labels >= FEW * classes:
        return None
    return (
        f"the network learns from nothing by {labels:,} labels of {classes} classes: a pretrained one mostly goes much "
        f"further on few labels, and takes minutes (--network timm:NAME --freeze, see docs/backbones.md)"
    )


def _idle(config: RunConfig) -> Iterator[tuple[Sequence[str], str]]:
    """Yield groups of options that have no effect, and the reason."""
    recipe = Recipe.parse(config.method)
    defaults = {name: parameter.default for name, parameter in recipe.hyperparameters().items()}
    options = {**defaults, **config.method_options}
    learner = recipe.method.__name__
    views = {*recipe.method.labeled_views, *recipe.method.unlabeled_views}
    if "strong" not in views:
        yield STRONG, f"{learner} has no strong views"
        yield (
            ("align_weight",),
            f"its loss compares a weak with a strong view, and {learner} has none",
        )
    if not recipe.method.unlabeled_views:
        yield ("unlabeled_ratio",), f"{learner} does not look at unlabelled images"
    if config.augmentation.crop == "resized":
        yield ("crop_padding",), "it belongs to --crop pad"
    if config.split.unlabeled_head is None:
        split = ("gamma_unlabeled", "unlabeled_shape")
        yield split, "the unlabelled images are the source's own, without --unlabeled-head"
    elif config.split.unlabeled_shape == "uniform":
        yield ("gamma_unlabeled",), "with --unlabeled-shape uniform all classes have as many images"
    if options.get("unlabeled_weight") == 0:
        weighted = ["threshold", "threshold_range", "weights_count", "cosine_threshold"]
        if not options.get("premix_weight"):  # which grows along the same ramp
            weighted.append("unlabeled_ramp")
        if recipe.method is USADTM:
            weighted.append("warmup_steps")
        yield weighted, "--unlabeled-weight 0 turns the loss off"
    if options.get("reweight_from") == 1:
        yield ("effective_number_beta",), "--reweight-from 1 never weighs the classes"
    if "margins_from" in options:
        given = options["margins_from"]
        if (options["reweight_from"] if given is None else given) == 1:
            yield ("max_margin", "logit_scale"), "the margins never act"
    if options.get("darp_start") == 1:
        yield ("darp_period", "darp_keep", "darp_iterations"), "--darp-start 1 never refines"
    if DASO in recipe.refiners:
        blend = options["blend"]
        if blend != "fixed":
            yield ("fixed_blend",), "it belongs to --blend fixed"
        if blend != "distribution":
            yield (
                ("dist_temperature", "histogram_period"),
                f"--blend {blend} does not ask how often a class is guessed",
            )
        if blend == "linear" and ("strong" not in views or options["align_weight"] == 0):
            yield PROTOTYPES, "--blend linear without the alignment loss uses no prototypes"
        if options["queue_encoder"] == "online" and recipe.method is not MeanTeacher:
            yield (
                ("queue_batch_statistics",),
                "--queue-encoder online asks the moving average for nothing",
            )
        if not options["balanced_queue"]:
            yield ("queue_length",), "it belongs to --balanced-queue"
    if recipe.plan is CReSTPlus and options.get("align") is False and Align not in recipe.refiners:
        yield ("align_min",), "nothing is aligned: with --align False CReST+ is CReST"
