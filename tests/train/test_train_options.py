"""The learning rate over time, and the ranges of the options."""

from __future__ import annotations

import math

import pytest

from daso.errors import OptionError
from daso.train.options import Schedule, TrainOptions, learning_rate


def test_constant() -> None:
    assert [learning_rate("constant", 0.03, step, 100) for step in (0, 50, 99)] == [0.03] * 3


def test_cosine_ends_at_seven_sixteenths_of_pi() -> None:
    assert learning_rate("cosine", 0.2, 0, 1000) == 0.2
    assert learning_rate("cosine", 0.2, 500, 1000) == pytest.approx(
        0.2 * math.cos(7 * math.pi / 32)
    )
    assert learning_rate("cosine", 0.2, 1000, 1000) == pytest.approx(
        0.2 * math.cos(7 * math.pi / 16)
    )
    rates = [learning_rate("cosine", 1.0, step, 100) for step in range(100)]
    assert rates == sorted(rates, reverse=True)


def test_multistep_warms_up_and_falls_twice() -> None:
    rates = [learning_rate("multistep", 0.1, step, 1000) for step in range(1000)]
    assert rates[:25] == pytest.approx([0.1 * (step + 1) / 25 for step in range(25)])
    assert rates[25:800] == [0.1] * 775
    assert rates[800:900] == pytest.approx([0.001] * 100)
    assert rates[900:] == pytest.approx([0.00001] * 100)


def test_thirds_warms_up_for_5_of_90_epochs_and_falls_after_30_and_60() -> None:
    rates = [learning_rate("thirds", 0.04, step, 1800) for step in range(1800)]
    assert rates[:100] == pytest.approx([0.04 * (step + 1) / 100 for step in range(100)])
    assert rates[100:600] == [0.04] * 500
    assert rates[600:1200] == pytest.approx([0.004] * 600)
    assert rates[1200:] == pytest.approx([0.0004] * 600)


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing() -> None:
    rates = [learning_rate("one-cycle", 0.1, step, 1000) for step in range(1000)]
    assert rates[:250] == sorted(rates[:250])
    assert rates[250:] == sorted(rates[250:], reverse=True)
    assert rates[125] == pytest.approx(0.05, rel=0.01)
    assert rates[625] == pytest.approx(0.05, rel=0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert 0 < rates[-1] < 1e-5


def test_a_warm_up_never_stands_still() -> None:
    schedules: tuple[Schedule, ...] = ("multistep", "thirds", "one-cycle")
    for schedule in schedules:
        for steps in (1, 2, 10, 19, 20, 60, 1873, 250_000):
            for share in (0, 1 / 40, 1 / 18, 1 / 3, 1 / 2, 0.8, 1):
                step = min(int(share * steps), steps - 1)
                assert 0 < learning_rate(schedule, 0.1, step, steps) <= 0.1


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(OptionError, match=r"unknown schedule 'cosin'; valid: constant, .*, thirds"):
        learning_rate("cosin", 0.1, 0, 10)  # type: ignore[arg-type]


OUT_OF_RANGE: dict[str, tuple[object, ...]] = {
    "steps": (-1,),
    "batch": (0,),
    "unlabeled_ratio": (0,),
    "learning_rate": (0.0, -0.1, math.nan, math.inf),
    "momentum": (1.0, -0.1),
    "weight_decay": (-1e-4, math.inf),
    "ema_decay": (1.0, -0.5),
    "layer_decay": (0.0, 1.1),
    "evaluate_every": (0,),
    "log_every": (0,),
    "seed": (-1, 2**32),
    "schedule": ("cosin",),
    "precision": ("float16", None),
    "device": ("gpu", "cude"),
}


def test_values_out_of_range_are_refused_by_name() -> None:
    for name, values in OUT_OF_RANGE.items():
        for value in values:
            with pytest.raises(OptionError, match=f"--{name.replace('_', '-')}"):
                TrainOptions(**{name: value})  # type: ignore[arg-type]
    for valid in (
        {"learning_rate": None},
        {"momentum": 0.0},
        {"seed": 2**32 - 1},
        {"device": "cuda:1"},
    ):
        TrainOptions(**valid)  # type: ignore[arg-type]


def test_an_error_tells_the_range_or_the_choices() -> None:
    with pytest.raises(OptionError, match=r"steps = -1 .*\(--steps\).* at least 0$"):
        TrainOptions(steps=-1)
    with pytest.raises(OptionError, match=r"at least 0 and below 1$"):
        TrainOptions(momentum=1)
    with pytest.raises(OptionError, match=r"constant, cosine.* Did you mean 'cosine'\?"):
        TrainOptions(schedule="cosin")  # type: ignore[arg-type]


def test_evaluation_period() -> None:
    for steps, every, period in ((250_000, None, 500), (1000, None, 20), (10, None, 1), (60, 7, 7)):
        assert TrainOptions(steps=steps, evaluate_every=every).evaluation_period == period
