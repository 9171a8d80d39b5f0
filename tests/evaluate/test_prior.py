"""Shifted class distributions, against Bayes' rule on exact probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from daso.balance import balanced_by
from daso.errors import DataError
from daso.evaluate.prior import FEW_POINTS, estimate_prior, shift, uncertainty

TRAINED = np.array([0.7, 0.2, 0.1])
REAL = np.array([0.1, 0.3, 0.6])
DENSITY = np.array([[0.5, 0.3, 0.1, 0.1], [0.1, 0.5, 0.2, 0.2], [0.1, 0.1, 0.3, 0.5]])
"""p(x | k) of four things that can be seen."""


def posterior(seen: np.ndarray, prior: np.ndarray) -> np.ndarray:
    rows = []
    for x in seen:
        joint = [DENSITY[k, x] * prior[k] for k in range(3)]
        rows.append([value / sum(joint) for value in joint])
    return np.array(rows)


def test_shift_is_bayes_rule() -> None:
    seen = np.arange(4)
    np.testing.assert_allclose(
        shift(posterior(seen, TRAINED), TRAINED, REAL), posterior(seen, REAL)
    )
    np.testing.assert_allclose(
        shift(posterior(seen, TRAINED), TRAINED, TRAINED), posterior(seen, TRAINED)
    )


def test_a_class_that_does_not_exist_is_never_named() -> None:
    absent = np.array([0.0, 0.5, 0.5])
    shifted = shift(posterior(np.arange(4), TRAINED), TRAINED, absent)
    assert (shifted[:, 0] == 0).all()
    np.testing.assert_allclose(shifted.sum(1), 1)
    sure = np.array([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(shift(sure, TRAINED, absent), [absent])


def test_the_distribution_of_unlabeled_images_is_found() -> None:
    random = np.random.default_rng(0)
    classes = random.choice(3, 20_000, p=REAL)
    seen = np.array([random.choice(4, p=DENSITY[k]) for k in classes])
    probs = posterior(seen, TRAINED)
    passes = []

    def chunks() -> list[np.ndarray]:
        passes.append(1)
        return np.array_split(probs, 7)

    estimate = estimate_prior(chunks, TRAINED)
    np.testing.assert_allclose(estimate, REAL, atol=0.03)
    assert abs(probs.mean(0) - REAL).max() > 0.2  # the mean of the probabilities is no estimate
    assert len(passes) < 1000

    def likelihood(prior: np.ndarray) -> float:
        return float(np.log((probs * prior / TRAINED).sum(1)).sum())

    for other in (
        TRAINED,
        np.full(3, 1 / 3),
        estimate + np.array([0.01, -0.01, 0]),
        estimate + np.array([0, 0.01, -0.01]),
    ):
        assert likelihood(estimate) > likelihood(np.asarray(other))


def test_no_image_no_estimate() -> None:
    with pytest.raises(DataError, match="no image"):
        estimate_prior(list, TRAINED)


def test_what_has_balanced_a_classifier() -> None:
    cases = {
        ("fixmatch+daso", "uniform"): (),
        ("fixmatch+la+daso", "uniform"): ("la",),
        ("fixmatch+abc+crt", "uniform"): ("abc", "crt"),
        ("supervised+ldam", "uniform"): ("ldam",),
        ("fixmatch+class-balanced+darp", "effective-number"): (
            "class-balanced",
            "effective-number sampling",
        ),
        ("supervised", "class-balanced"): ("class-balanced sampling",),
    }
    for (method, sampling), expected in cases.items():
        config = {"method": method, "train": {"labeled_sampling": sampling}}
        assert balanced_by(config, {}) == expected, method  # as of a run of daso 0.1.0
    config = {"method": "fixmatch", "train": {"labeled_sampling": "uniform"}}
    assert balanced_by(config, {"method": {"balanced_by": ["la"]}}) == ("la",)


def test_how_uncertain_shares_of_few_images_are_against_a_simulation() -> None:
    random = np.random.default_rng(0)
    for images in (14, 400):
        shares = random.multinomial(images, [0.6, 0.4], 20_000)[:, 0] / images
        expected = 196 * shares.std()
        assert uncertainty(np.array([0.6, 0.4]), images) == pytest.approx(expected, rel=0.05)
    assert (
        uncertainty(np.array([0.6, 0.4]), 14) > FEW_POINTS > uncertainty(np.array([0.6, 0.4]), 400)
    )
    assert uncertainty(np.array([1.0, 0.0]), 14) > 0
