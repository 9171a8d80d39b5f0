"""The choices of images: against loops over every image, and what the list of those to label next promises."""

from __future__ import annotations

import numpy as np
import pytest

from daso.train.beliefs.label_next import best_per_group, disagreements, rank_to_label

RANDOM = np.random.default_rng(3)


def probabilities(images: int, classes: int, sharpness: float = 3.0) -> np.ndarray:
    powers = np.exp(sharpness * RANDOM.normal(size=(images, classes)))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_best_of_each_group() -> None:
    for most in (1, 3, 50):
        groups, score = RANDOM.integers(0, 5, 60), RANDOM.integers(0, 9, 60).astype(float)
        wanted = []
        for group in range(5):
            members = [i for i in range(60) if groups[i] == group]
            wanted += sorted(members, key=lambda i: (-score[i], i))[:most]
        assert best_per_group(groups, score, most).tolist() == sorted(
            wanted, key=lambda i: (-score[i], i)
        )


def test_no_image_has_no_best() -> None:
    assert len(best_per_group(np.zeros(0, int), np.zeros(0), 3)) == 0


def test_disagreements_are_sure_and_no_pair_takes_all_places() -> None:
    linear, semantic = probabilities(400, 4), probabilities(400, 4)
    chosen = disagreements(linear, semantic, per_pair=2, most=10)
    first, second = linear.argmax(1), semantic.argmax(1)
    assert len(chosen) == 10
    assert (first[chosen] != second[chosen]).all()
    surety = linear.max(1) * semantic.max(1)
    assert (np.diff(surety[chosen]) <= 0).all()
    pairs = list(zip(first[chosen], second[chosen], strict=True))
    assert max(map(pairs.count, pairs)) <= 2
    outside = [i for i in np.flatnonzero(first != second) if i not in chosen]
    better = [i for i in outside if surety[i] > surety[chosen[-1]]]
    assert all(pairs.count((first[i], second[i])) == 2 for i in better)


def test_the_list_to_label_next_is_chosen_image_by_image() -> None:
    linear, semantic, features = (
        probabilities(80, 5),
        probabilities(80, 5),
        RANDOM.normal(size=(80, 6)),
    )
    counts = np.array([100, 50, 20, 5, 2])
    ranking = rank_to_label(linear, semantic, features, counts, most=12)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    nearest = [min(1 - float(unit[i] @ unit[j]) for j in range(80) if j != i) for i in range(80)]
    spacing = sorted(nearest)[39] / 2 + sorted(nearest)[40] / 2
    taken: list[int] = []
    for rank in range(12):
        best, best_score = -1, -1.0
        for i in range(80):
            if i in taken:
                continue
            belief = (linear[i] + semantic[i]) / 2
            a, b = np.argsort(-belief, kind="stable")[:2]
            rare = [np.sqrt(2 / counts[k]) for k in (a, b)]
            rarity = (belief[a] * rare[0] + belief[b] * rare[1]) / (belief[a] + belief[b])
            novelty = min([1.0, *((1 - float(unit[i] @ unit[j])) / spacing for j in taken)])
            score = (1 - belief[a] + belief[b]) * rarity * novelty
            if score > best_score:
                best, best_score = i, score
        assert ranking.place[rank] == best
        assert ranking.score[rank] == pytest.approx(best_score, rel=1e-6)
        taken.append(best)


def test_copies_of_an_image_are_asked_for_once() -> None:
    linear = np.repeat([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1]], 5, axis=0)
    features = np.repeat(np.eye(3), 5, axis=0)
    ranking = rank_to_label(linear, linear, features, np.array([10, 1]), most=4)
    assert [place // 5 for place in ranking.place[:3]] == [0, 1, 2]
    assert ranking.novelty[3] == 0


def test_a_single_image_is_ranked() -> None:
    ranking = rank_to_label(
        np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]), np.ones((1, 3)), np.array([2, 1]), 9
    )
    assert ranking.place.tolist() == [0]
    assert ranking.novelty.tolist() == [1]


def test_an_image_that_may_be_of_a_rare_class_comes_first() -> None:
    unsure = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    ranking = rank_to_label(unsure, unsure, np.eye(2), np.array([50, 40, 2]), most=2)
    assert ranking.place.tolist() == [1, 0]


def test_where_the_classifiers_disagree_a_label_decides() -> None:
    linear = np.array([[0.98, 0.02], [0.98, 0.02]])
    semantic = np.array([[0.97, 0.03], [0.02, 0.98]])
    ranking = rank_to_label(linear, semantic, np.eye(2), np.array([5, 5]), most=2)
    assert ranking.place.tolist() == [1, 0]
    assert ranking.uncertainty[0] == pytest.approx(1.0)
    assert ranking.uncertainty[1] < 0.1
