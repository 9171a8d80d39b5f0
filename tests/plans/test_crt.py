"""cRT: its two trainings."""

import pytest

from daso.errors import OptionError
from daso.plans.crt import CRT


def test_a_tenth_of_the_steps_is_for_the_classifier() -> None:
    for total, options, steps in (
        (1005, {}, (905, 100)),
        (3, {}, (2, 1)),
        (50, {"retraining_steps": 20}, (30, 20)),
        (2, {"retraining_steps": 1}, (1, 1)),
    ):
        assert tuple(stage.steps for stage in CRT(total, **options).stages()) == steps


def test_the_second_training_is_supervised_balanced_and_of_the_heads_alone() -> None:
    first, second = CRT(100, retraining_rate=0.2).stages()
    assert (first.method, first.keeps_encoder, first.sampling) == (None, False, None)
    assert (second.method, second.keeps_encoder) == ("supervised", True)
    assert second.sampling == "class-balanced"
    assert (second.learning_rate, second.schedule) == (0.2, "multistep")
    assert CRT(100).stages()[1].learning_rate == 0.1


def test_values_out_of_range_are_refused_by_name() -> None:
    for option, values in {
        "retraining_steps": (0, 100),
        "retraining_rate": (0.0, -1.0, float("inf")),
    }.items():
        for value in values:
            with pytest.raises(OptionError, match=f"{option} = {value}"):
                CRT(100, **{option: value})
