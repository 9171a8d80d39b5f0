"""cRT: its two trainings."""

import pytest

from daso.errors import OptionError
from daso.plans.crt import CRT


def test_a_tenth_of_the_steps_is_for_the_classifier() -> None:
    first, second = CRT(1005).stages()
    assert (first.steps, second.steps) == (905, 100)
    assert CRT(3).stages()[1].steps == 1
    assert [stage.steps for stage in CRT(50, retraining_steps=20).stages()] == [30, 20]


def test_the_second_training_is_supervised_balanced_and_of_the_heads_alone() -> None:
    first, second = CRT(100, retraining_rate=0.2).stages()
    assert (first.method, first.keeps_encoder, first.sampling) == (None, False, None)
    assert (second.method, second.keeps_encoder, second.sampling) == (
        "supervised",
        True,
        "class-balanced",
    )
    assert (second.learning_rate, second.schedule) == (0.2, "multistep")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("retraining_steps", 0),
        ("retraining_steps", 100),
        ("retraining_rate", 0.0),
        ("retraining_rate", -1.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{option} = {value}"):
        CRT(100, **{option: value})
