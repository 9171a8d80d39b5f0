"""Warnings from made rows, each for one thing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_rows import GOOD, LABELED, REVERSED, Row, evaluation, kinds, warnings_of, watched

from daso.catalog import METHODS
from daso.compose import Recipe
from daso.report.uncertainty import WIDE, interval
from daso.report.warnings.checks import additions, distance
from daso.report.warnings.run_facts import watched_run


def test_an_empty_mask_is_said_once_and_not_before_the_warm_up_is_over_for_long() -> None:
    def row(step: int) -> Row:
        return evaluation(step, confident=np.zeros(4), share=0.0)

    (warning,) = warnings_of(watched(), row)
    # A fifth of the steps is too early, another fifth makes it long.
    assert (warning["kind"], warning["step"]) == ("empty mask", 400)
    assert "--threshold" in warning["advice"]
    (warning,) = warnings_of(watched(options={"warmup_steps": 500}), row)
    assert warning["step"] == 700
    assert warnings_of(watched(), lambda step: evaluation(step, share=0.01)) == []


def test_an_empty_mask_after_the_warm_up_of_daso_has_another_advice() -> None:
    options = {"warmup_steps": 300, "prototype_temperature": 0.05}
    (warning,) = warnings_of(
        watched(options=options), lambda s: evaluation(s, share=0.3 if s <= 300 else 0.0)
    )
    assert "--warmup-steps" in warning["advice"]
    (warning,) = warnings_of(watched(options=options), lambda s: evaluation(s, share=0.0))
    assert "--warmup-steps" not in warning["advice"]


def test_starved_classes_rarest_first_and_again_when_twice_as_many() -> None:
    def row(step: int) -> Row:
        confident = [0.6, 0.4, 0.0, 0.0] if step > 600 else [0.5, 0.3, 0.2, 0.0]
        return evaluation(step, confident=confident)

    first, second = warnings_of(watched(), row)
    assert (first["kind"], first["classes"], first["step"]) == ("starved classes", [3], 400)
    assert second["classes"] == [3, 2]
    # The window of the second begins with the first evaluation in which class 2 has none.
    assert second["step"] == 800
    assert "class 3, class 2" in second["message"]


def test_where_no_class_has_sure_pseudo_labels_none_is_starved() -> None:
    for share, expected in ((0.04, "empty mask"), (0.2, "starved classes")):
        found = warnings_of(
            watched(), lambda s, share=share: evaluation(s, confident=[0, 0, 0, 1], share=share)
        )
        assert expected in kinds(found), share
        for warning in found:
            # The most frequent class has the most labels: more of them are not what helps.
            assert "more labeled images" not in warning["advice"].lower()
    (warning,) = warnings_of(watched(), lambda s: evaluation(s, confident=[0.5, 0.3, 0.2, 0.0]))
    assert warning["advice"].startswith("More labeled images")


def test_next_to_none_is_none() -> None:
    def share(of_class_3: float) -> list[Row]:
        rest = (1 - of_class_3) / 3
        return warnings_of(
            watched(), lambda step: evaluation(step, confident=[rest, rest, rest, of_class_3])
        )

    # Among the confident ones: 2% of the class's share of a tenth.
    assert kinds(share(0.0019)) == ["starved classes"]
    assert kinds(share(0.0021)) == []


def test_a_class_is_not_missed_before_it_should_have_had_some() -> None:
    labeled = np.array([0.9995, 0.0005])

    def row(step: int) -> Row:
        return evaluation(step, final=labeled, confident=[1.0, 0.0])

    # Of 32 confident ones a step: 0.016 of the class, 20 after 1,250 steps; the window is a fifth of the run.
    assert kinds(warnings_of(watched(labeled, steps=5000), row, steps=5000)) == []
    assert kinds(warnings_of(watched(labeled, steps=7000), row, steps=7000)) == ["starved classes"]


def test_one_class_swallows_the_others() -> None:
    for labeled, final, expected in (
        ([0.5, 0.5], [0.8, 0.2], True),
        ([0.5, 0.5], [0.7, 0.3], False),
        ([0.9, 0.1], [0.94, 0.06], False),
        ([0.1, 0.9], [0.6, 0.4], True),
        ([0.005] * 200, [0.3, *[0.7 / 199] * 199], True),
        ([0.005] * 200, [0.1, *[0.9 / 199] * 199], False),
    ):
        found = warnings_of(watched(np.array(labeled)), lambda s, f=final: evaluation(s, final=f))
        assert ("swallowing class" in kinds(found)) == expected, (labeled[0], final[0])
        if expected:
            warning = next(w for w in found if w["kind"] == "swallowing class")
            assert warning["classes"] == [0]
            assert "starved classes" not in kinds(found)  # the one says it all


def test_t_dist_for_the_other_case() -> None:
    for final, temperature, advice in (
        (LABELED, 1.5, None),
        (REVERSED, 1.5, "--dist-temperature 0.3"),
        (LABELED, 0.3, "--dist-temperature 1.5"),
        (REVERSED, 0.3, None),
        (REVERSED, 0.7, None),
    ):
        found = warnings_of(
            watched(options={"dist_temperature": temperature}),
            lambda s, final=final: evaluation(s, final=final, test=GOOD),
        )
        if advice is None:
            assert found == [], temperature
        else:
            (warning,) = found
            # A third of the steps, and long from there on.
            assert (warning["kind"], warning["step"]) == ("T_dist", 550)
            assert advice in warning["advice"]


def test_t_dist_is_not_judged_where_it_has_no_say_or_labels_are_balanced() -> None:
    fixed = watched(options={"dist_temperature": 1.5, "blend": "fixed"})
    assert warnings_of(fixed, lambda step: evaluation(step, final=REVERSED, test=GOOD)) == []
    even = np.full(4, 0.25)
    balanced = watched(even, {"dist_temperature": 0.3})
    assert warnings_of(balanced, lambda step: evaluation(step, final=even, test=GOOD)) == []


def test_a_classifier_that_does_not_know_the_rare_classes_is_not_trusted() -> None:
    for final, temperature, measured, warned in (
        (REVERSED, 1.5, {"balanced_accuracy": 0.4, "recall_few": 0.4}, False),
        (REVERSED, 1.5, {"balanced_accuracy": 0.6, "recall_few": 0.0}, True),
        (LABELED, 0.3, {"balanced_accuracy": 0.6, "recall_few": 0.0}, False),
        (LABELED, 0.3, {"balanced_accuracy": 0.6, "recall_few": None}, False),
        (LABELED, 0.3, {"balanced_accuracy": 0.6, "recall_few": 0.3}, True),
        (REVERSED, 1.5, None, False),
    ):
        more = {} if measured is None else {"test": measured}
        found = warnings_of(
            watched(options={"dist_temperature": temperature}),
            lambda s, final=final, more=more: evaluation(s, final=final, **more),
        )
        assert kinds(found) == (["T_dist"] if warned else []), (temperature, measured)


def t_dist_warnings(final: np.ndarray, temperature: float, **more: Any) -> list[str]:
    run = watched(options={"dist_temperature": temperature}, **more)
    return kinds(warnings_of(run, lambda s: evaluation(s, final=final, test=GOOD)))


def test_the_t_dist_for_what_nobody_knows_is_not_called_wrong() -> None:
    assert t_dist_warnings(LABELED, 0.3) == ["T_dist"]
    assert t_dist_warnings(LABELED, 0.3, drawn=False) == []
    assert t_dist_warnings(REVERSED, 1.5, drawn=False) == ["T_dist"]


def test_t_dist_is_not_judged_in_a_run_of_a_cross_validation_or_after_a_few_passes() -> None:
    assert t_dist_warnings(REVERSED, 1.5, fold=True) == []
    # 1,000 steps of 64 are ten passes over 6,400.
    assert t_dist_warnings(REVERSED, 1.5, unlabeled=6_400) == ["T_dist"]
    assert t_dist_warnings(REVERSED, 1.5, unlabeled=6_401) == []


def test_advised_additions_are_missing_and_not_refused() -> None:
    composed = ["mixmatch+daso", "meanteacher+daso", "fixmatch+daso", "boss+la", "fixmatch+abc"]
    for method in (*METHODS, *composed):
        advised = additions(watched(method=method, options=options_of(method)))
        named = set(re.findall(r"\+(\w+)", advised))
        assert not named & set(method.split("+")), method
        for part in named:
            Recipe.parse(f"{method}+{part}")
        if Recipe.parse(method).balanced_by():
            assert not named & {"la", "abc"}, method
        else:
            assert {"la"} <= named or "--labeled-sampling class-balanced" in advised, method


def options_of(method: str) -> Row:
    return {name: known.default for name, known in Recipe.parse(method).hyperparameters().items()}


def test_additions_to_runs_that_do_not_record_what_their_method_takes() -> None:
    run = watched_run(
        {"method": "fixmatch+daso", "train": {"steps": 10, "batch": 4}},
        {"class_names": ["a", "b"], "labeled_counts": [3, 1]},
    )
    assert additions(run) == "--labeled-sampling class-balanced"
    assert additions(replace(run, balanced_by=("la",))) == ""


def test_the_advice_of_the_warnings_knows_the_method() -> None:
    def starved(step: int) -> Row:
        return evaluation(step, confident=[0.5, 0.3, 0.2, 0.0])

    def swallowed(step: int) -> Row:
        return evaluation(step, final=[0.97, 0.01, 0.01, 0.01])

    for make in (starved, swallowed):
        (plain,) = warnings_of(watched(method="fixmatch"), make)
        assert "+daso, +abc or +la" in plain["advice"]
        options = options_of("fixmatch+la+daso") | {"warmup_steps": 0, "blend": "fixed"}
        (full,) = warnings_of(watched(method="fixmatch+la+daso", options=options), make)
        assert "+" not in full["advice"]


def test_distance_is_the_share_that_would_have_to_change() -> None:
    assert distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    # Four of a hundred pseudo-labels of the first class would have to be of the second.
    assert distance(np.array([0.54, 0.46]), np.array([0.5, 0.5])) == pytest.approx(0.04)


def measuring(part: str, recall: list[float | None]) -> Callable[[int], Row]:
    """Return a function that makes the row of an evaluation with these recalls."""
    return lambda step: {"event": "evaluate", "step": step, part: {"recall": recall}}


def test_an_uncertain_measure_against_a_simulation() -> None:
    images, recall = np.array([40, 10, 4]), np.array([0.9, 0.7, 0.5])
    run = watched(LABELED[:3], measured={"holdout": images})
    measured = measuring("holdout", recall.tolist())
    (warning,) = warnings_of(run, measured)
    random = np.random.default_rng(0)
    balanced = (random.binomial(images, recall, (20_000, 3)) / images).mean(1)
    half = interval(recall, images.astype(float))
    assert half == pytest.approx(1.96 * balanced.std(), abs=0.03)
    assert half > WIDE
    assert "54 held-out images (4 of a class at least)" in warning["message"]
    (own,) = warnings_of(replace(run, drawn=False), measured)
    assert "daso validate" in own["advice"]
    assert "daso validate" not in warning["advice"]  # which refuses what is drawn from a larger set
    assert warnings_of(replace(run, fold=True), measured) == []
    plenty = watched(LABELED[:3], measured={"holdout": 100 * images})
    assert warnings_of(plenty, measuring("holdout", [0.9] * 3)) == []


def test_what_is_said_of_few_images_at_the_start_cannot_be_contradicted_at_the_end() -> None:
    images = np.array([60.0, 60.0, 60.0])
    first, last = interval(np.full(3, 1 / 3), images), interval(np.full(3, 0.97), images)
    assert first is not None
    assert last is not None
    assert last < WIDE < first
    run = watched(LABELED[:3], measured={"test": images})
    assert warnings_of(run, measuring("test", [0.3] * 3)) == []


def test_a_perfect_recall_of_few_images_is_no_certainty_and_unmeasured_classes_are_left_out() -> (
    None
):
    run = watched(LABELED[:3], measured={"test": [3, 3, 0]})
    (warning,) = warnings_of(run, measuring("test", [1.0, 1.0, None]))
    assert warning["kind"] == "uncertain measure"
    assert "6 test images (3 of a class at least)" in warning["message"]
