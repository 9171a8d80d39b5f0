"""Composition: what goes together, which options a method has, and what is refused."""

import pytest
import torch
from small_learners import COUNTS, build

from daso.compose import Recipe, compose
from daso.errors import OptionError
from daso.methods.fixmatch import FixMatch
from daso.parts import Facts
from daso.plans.plan import Plan
from daso.refine.daso import DASO

FACTS = Facts(4, 32, COUNTS, COUNTS, 1000, 100)


def test_hyperparameters_come_from_constructors_with_their_descriptions() -> None:
    known = Recipe.parse("fixmatch+daso").hyperparameters()
    assert (known["threshold"].default, known["threshold"].part) == (0.95, "FixMatch")
    assert known["dist_temperature"].default == 1.5
    assert "T_dist" in known["dist_temperature"].help
    assert all(parameter.help for parameter in known.values())
    assert not {"refine", "supervised", "num_classes"} & known.keys()
    assert Recipe.parse("supervised").hyperparameters() == {}


def test_options_reach_their_part_and_defaults_are_resolved() -> None:
    method = compose("fixmatch+daso", FACTS, {"threshold": 0.7, "queue_length": 3})
    assert isinstance(method, FixMatch)
    assert isinstance(method.refine, DASO)
    resolved = Recipe.parse("fixmatch+daso").resolved_options(method, Plan(1000))
    assert resolved.keys() == Recipe.parse("fixmatch+daso").hyperparameters().keys()
    expected = {"threshold": 0.7, "queue_length": 3, "warmup_steps": 200}
    assert {name: resolved[name] for name in expected} == expected
    boss = compose("boss+la+daso", FACTS, {"threshold_range": 0.1, "threshold": 0.8})
    assert (boss.threshold_range, boss.threshold) == (0.1, 0.8)


REFUSED = {
    "fixmach": "Did you mean 'fixmatch'",
    "fixmatch+dsao": "Did you mean 'daso'",
    "supervised+daso": "no guesses",
    "supervised+crest-plus": "no guesses",
    "fixmatch+la+ldam": "two losses",
    "fixmatch+crest+crt": "two ways",
    "fixmatch+mixmatch": "is a method",
    "daso": "to a method",
    "mixmatch+la": "labels are soft",
    "remixmatch+abc": "no single label",
    "meanteacher+abc": "no strong view",
    "usadtm+daso": "nearest prototypes",
    "mixtureteacher+daso": "readout",
    "fixmatch+estimate": "align.*darp",
    "fixmatch+daso+daso": "twice",
    "": "unknown method ''",
    "fixmatch+": "unknown part ''",
}


def test_names_that_make_no_sense_are_refused_with_the_reason() -> None:
    for name, reason in REFUSED.items():
        with pytest.raises(OptionError, match=reason):
            compose(name, FACTS)


OUT_OF_RANGE = [
    ("supervised+la", "adjustment_strength", -0.5, float("inf")),
    ("supervised+class-balanced", "effective_number_beta", -0.1, 1.1),
    ("supervised+class-balanced", "reweight_from", -0.1, 1.1),
    ("supervised+ldam", "max_margin", -1.0, float("inf")),
    ("supervised+ldam", "logit_scale", 0.0, float("inf")),
    ("supervised+ldam", "effective_number_beta", -0.1, 1.1),
    ("supervised+ldam", "reweight_from", -0.1, 2.0),
    ("supervised+ldam", "margins_from", -0.1, 1.5),
    ("pseudolabel", "threshold", -0.1, 1.5),
    ("pseudolabel", "unlabeled_weight", -1.0, float("inf")),
    ("pseudolabel", "unlabeled_ramp", -0.1, 1.1),
    ("meanteacher", "unlabeled_weight", -1.0, float("inf")),
    ("meanteacher", "unlabeled_ramp", -0.1, 2.0),
    ("fixmatch", "threshold", -0.1, 1.5),
    ("fixmatch", "unlabeled_weight", -1.0, float("inf")),
    ("fixmatch", "weak_pass", "together"),
    ("freematch", "fairness_weight", -1.0, float("inf")),
    ("freematch", "mean_decay", -0.1, 1.1),
    ("softmatch", "deviations", 0.0, float("inf")),
    ("debiaspl", "debias", -0.1, float("nan")),
    ("acr", "adjustment_strength", -0.1, float("inf")),
    ("acr", "estimate_start", -0.1, 1.1),
    ("acr", "estimate_period", 0),
    ("simpro", "prior_strength", -0.1, float("inf")),
    ("simpro", "prior_period", 0),
    ("simpro", "prior_decay", -0.1, 1.1),
    ("adello", "least_power", -0.1, 1.1),
    ("adello", "power_curve", 0.0, float("inf")),
    ("adello", "complementary_weight", -0.1, float("inf")),
    ("adello", "complementary_start", -0.1, 1.1),
    ("cdmad", "debias_start", -0.1, 1.1),
    ("cdmad", "blank_value", -1, 256),
    ("cossl", "colearning_start", -0.1, 1.1),
    ("cossl", "least_ratio", -0.1, 1.1),
    ("boss", "threshold_range", -0.1, 0.41),  # the threshold here is 0.4
    ("boss", "weights_count", "none"),
    ("mixmatch", "temperature", 0.0, float("inf")),
    ("mixmatch", "mixup_alpha", 0.0, float("inf")),
    ("mixmatch", "unlabeled_weight", -1.0, float("inf")),
    ("mixmatch", "unlabeled_ramp", -0.1, 1.1),
    ("remixmatch", "temperature", 0.0, float("inf")),
    ("remixmatch", "mixup_alpha", 0.0, float("inf")),
    ("remixmatch", "unlabeled_weight", -1.0, float("inf")),
    ("remixmatch", "premix_weight", -0.5, float("inf")),
    ("remixmatch", "rotation_weight", -0.5, float("nan")),
    ("remixmatch", "unlabeled_ramp", -0.1, 1.1),
    ("usadtm", "cosine_threshold", -1.1, 1.1),
    ("usadtm", "unlabeled_weight", -1.0, float("inf")),
    ("usadtm", "information_weight", -1.0, float("inf")),
    ("usadtm", "warmup_steps", -1),
    ("mixtureteacher", "unlabeled_weight", -1.0, float("inf")),
    ("mixtureteacher", "belief_threshold", -0.1, 1.1),
    ("mixtureteacher", "belief_temperature", 0.0, float("inf")),
    ("fixmatch+align", "align_memory", 0),
    ("fixmatch+sharpen", "sharpen_temperature", 0.0, float("inf")),
    ("fixmatch+daso", "queue_length", 0),
    ("fixmatch+daso", "prototype_temperature", 0.0, float("inf")),
    ("fixmatch+daso", "dist_temperature", 0.0, -1.0, float("inf")),
    ("fixmatch+daso", "align_weight", -0.1, float("inf")),
    ("fixmatch+daso", "warmup_steps", -1),
    ("fixmatch+daso", "histogram_period", 0),
    ("fixmatch+daso", "blend", "median"),
    ("fixmatch+daso", "fixed_blend", -0.1, 1.5),
    ("fixmatch+daso", "queue_encoder", "both"),
    ("fixmatch+darp", "darp_start", -0.1, 1.1),
    ("fixmatch+darp", "darp_period", 0),
    ("fixmatch+darp", "darp_keep", 0.0, float("inf")),
    ("fixmatch+darp", "darp_iterations", 0),
    ("fixmatch+abc", "balanced_threshold", -0.1, 1.5),
]
IN_RANGE = [
    ("supervised+la", "adjustment_strength", 0.0),
    ("supervised+class-balanced", "effective_number_beta", 0.0, 1.0),
    ("supervised+class-balanced", "reweight_from", 0.0, 1.0),
    ("supervised+ldam", "max_margin", 0.0),
    ("supervised+ldam", "margins_from", 0.0, 1.0),
    ("pseudolabel", "threshold", 0.0, 1.0),
    ("pseudolabel", "unlabeled_weight", 0.0),
    ("pseudolabel", "unlabeled_ramp", 0.0, 1.0),
    ("meanteacher", "unlabeled_weight", 0.0),
    ("meanteacher", "unlabeled_ramp", 0.0, 1.0),
    ("fixmatch", "threshold", 0.0, 1.0),
    ("fixmatch", "unlabeled_weight", 0.0),
    ("boss", "threshold_range", 0.0, 0.4),
    ("mixmatch", "unlabeled_weight", 0.0),
    ("mixmatch", "unlabeled_ramp", 0.0, 1.0),
    ("remixmatch", "unlabeled_weight", 0.0),
    ("remixmatch", "premix_weight", 0.0),
    ("remixmatch", "rotation_weight", 0.0),
    ("remixmatch", "unlabeled_ramp", 0.0, 1.0),
    ("usadtm", "cosine_threshold", -1.0, 1.0),
    ("usadtm", "unlabeled_weight", 0.0),
    ("usadtm", "information_weight", 0.0),
    ("usadtm", "warmup_steps", 0),
    ("fixmatch+align", "align_memory", 1),
    ("fixmatch+daso", "queue_length", 1),
    ("fixmatch+daso", "align_weight", 0.0),
    ("fixmatch+daso", "warmup_steps", 0),
    ("fixmatch+daso", "histogram_period", 1),
    ("fixmatch+daso", "fixed_blend", 0.0, 1.0),
    ("fixmatch+darp", "darp_start", 0.0, 1.0),
    ("fixmatch+darp", "darp_period", 1),
    ("fixmatch+darp", "darp_iterations", 1),
    ("fixmatch+abc", "balanced_threshold", 0.0, 1.0),
]


def test_values_out_of_range_are_refused_by_name() -> None:
    for name, option, *values in OUT_OF_RANGE:
        for value in values:
            with pytest.raises(OptionError, match=f"{option} = '?{value}"):
                build(name, **{option: value})


def test_the_ends_of_ranges_are_allowed() -> None:
    for name, option, *values in IN_RANGE:
        for value in values:
            build(name, **{option: value})


def test_a_class_without_labels_is_refused_where_it_cannot_be_weighed() -> None:
    counts = torch.tensor([9, 0, 2, 1])
    for part in ("la", "ldam", "class-balanced", "abc"):
        with pytest.raises(OptionError, match=r"\[9, 0, 2, 1\]"):
            build(f"fixmatch+{part}", counts)


def test_options_that_no_part_has_are_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'threshold'"):
        compose("fixmatch", FACTS, {"treshold": 0.9})


def test_options_that_others_turn_off_are_named() -> None:
    assert Recipe.parse("fixmatch").idle_options({"unlabeled_weight": 0.0}).keys() == {"threshold"}
    assert not Recipe.parse("fixmatch").idle_options({})
    for name, is_idle in (("fixmatch", True), ("meanteacher", False)):  # the latter has a teacher
        idle = Recipe.parse(f"{name}+daso").idle_options({"queue_encoder": "online"})
        assert ("queue_batch_statistics" in idle) == is_idle
    daso = Recipe.parse("fixmatch+daso")
    assert daso.idle_options({}).keys() == {"fixed_blend"}
    assert daso.idle_options({"blend": "fixed"}).keys() == {"dist_temperature", "histogram_period"}


def test_a_training_that_blends_late_or_never_is_told_so() -> None:
    for start, told in ((50, ""), (51, "from step 51 on"), (99, "from step 99 on"), (100, "never")):
        options = {"blend": "distribution", "histogram_period": 1, "warmup_steps": start}
        text = " ".join(DASO.remarks(options, 100))
        assert told in text
        assert bool(text) == bool(told)


def test_parts_refine_in_the_order_in_which_they_are_named() -> None:
    for name in ("fixmatch+align+sharpen", "fixmatch+sharpen+align"):
        refiners = [type(part).__name__.lower() for part in build(name).refine.refiners]
        assert "+".join(["fixmatch", *refiners]) == name
