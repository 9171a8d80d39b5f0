"""What is suggested: all classes from nothing, rare classes from a few labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from daso.label.live import fit_live, unit_rows
from daso.label.suggest import Situation, in_doubt
from daso.label.typical import cluster, typical_order
from daso.readout.logistic import LinearHead
from daso.readout.mixture import fit_labeled
from tests.helpers.labeling import make_digits


def label_as_suggested(digits: Any, session: Any) -> list[int]:
    """Label three times 20 suggested images by their true classes; return them."""
    found: list[int] = []
    for _ in range(3):
        images = [one["image"] for one in session.suggest(20)]
        for image in images:
            session.assign([image], digits.name(image))
        found += images
        session.wait()
    return found


def test_every_digit_is_found_from_nothing_by_60_labels(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, each=0)
    session = digits.open()
    found = label_as_suggested(digits, session)
    assert len(set(digits.truth[found])) == 10
    session.journal.close()


def test_rare_classes_are_asked_for_more_than_by_chance(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, each=6, images=1_000, keep={8: 20, 9: 20})
    session = digits.open()
    found = label_as_suggested(digits, session)
    labels = digits.truth[found]
    share = float(np.isin(digits.truth[60:], (8, 9)).mean())
    assert float(np.isin(labels, (8, 9)).mean()) > 2 * share
    session.journal.close()


def test_doubtful_images_come_in_the_order_of_k_means_plus_plus_on_gradients() -> None:
    """BADGE (Ash et al., 2020), with the gradients of the last layer themselves, in float64."""
    random = np.random.default_rng(0)
    features = np.float32(random.normal(size=(80, 6)))
    labels = np.full(80, -1)
    labels[:12] = np.arange(12) % 3
    beliefs = fit_live(features, labels, 3, 0)
    assert beliefs is not None
    free = labels < 0
    free[[20, 30]] = False
    situation = Situation(
        names=("a", "b", "c"),
        labels=labels,
        free=free,
        counts=np.bincount(labels[:12]),
        settled=True,
        features=features,
        unit=unit_rows(features),
        clusters=cluster(unit_rows(features), 5, 0),
        beliefs=beliefs,
    )
    found = [one.image for one in in_doubt(situation)]
    assert sorted(found) == np.flatnonzero(free).tolist()

    inputs = torch.from_numpy(features).double()
    head = beliefs.head
    logits = (inputs @ head.weight.double() + head.bias.double()).requires_grad_()
    F.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
    assert logits.grad is not None
    gradients = torch.einsum("nk,nd->nkd", logits.grad, inputs).flatten(1)
    assert found[0] == max(found, key=lambda image: float(gradients[image].norm()))
    draws = np.random.default_rng(12)
    rows = np.flatnonzero(free)
    for number in range(1, 30):
        chosen = gradients[found[:number]]
        nearest = torch.cdist(gradients[rows], chosen).min(1).values.square().numpy()
        nearest[np.isin(rows, found[:number])] = 0
        assert rows[draws.choice(len(rows), p=nearest / nearest.sum())] == found[number]


def test_clusters_and_their_typical_images_are_those_of_separate_groups() -> None:
    random = np.random.default_rng(0)
    centers = 3 * np.eye(6, 20)
    sizes = [90, 50, 40, 30, 20, 10]
    groups = np.repeat(np.arange(6), sizes)
    rows = centers[groups] + 0.2 * random.standard_normal((len(groups), 20))
    order = random.permutation(len(rows))
    unit, groups = unit_rows(rows[order]), groups[order]
    clusters = cluster(unit, 6, 0)
    pairs = set(zip(clusters.of.tolist(), groups.tolist(), strict=True))
    assert len(pairs) == 6

    free = np.ones(len(unit), dtype=bool)
    chosen = list(typical_order(unit, clusters, free))
    assert groups[chosen].tolist() == [0, 1, 2, 3, 4, 5]
    for image in chosen:
        members = unit[groups == groups[image]]
        assert (members @ unit[image]).mean() > np.median((members @ members.T).mean(1))
    free[chosen[:2]] = False
    assert list(typical_order(unit, clusters, free)) == chosen[2:]


def test_with_many_classes_a_fit_goes_on_from_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def spy(*given: Any) -> LinearHead:
        steps.append(given[4])
        return fit_labeled(*given)

    monkeypatch.setattr("daso.label.live.fit_labeled", spy)
    random = np.random.default_rng(0)
    classes = 121
    truth = np.repeat(np.arange(classes), 12)
    features = random.normal(size=(classes, 32))[truth] + 0.5 * random.normal(size=(len(truth), 32))
    features = np.float32(features / np.sqrt((features**2).mean()))
    labels = np.where(np.arange(len(truth)) % 12 < 4, truth, -1)
    labels[truth >= classes - 2] = -1  # one class without a label, and one that comes later
    before = fit_live(features, labels, classes - 1, 0)
    rows = np.flatnonzero(truth >= classes - 2)
    for some in (rows[::4], rows[1::4]):
        labels[some] = truth[some]
        before = fit_live(features, labels, classes, 0, before)
    full = fit_live(features, labels, classes, 0)
    assert before is not None
    assert full is not None
    assert max(steps[1:3]) < min(steps[0], steps[3])
    guessed = np.concatenate([before.top[rows, 0], full.top[rows, 0]])
    assert (guessed == np.tile(truth[rows], 2)).mean() > 0.9
    assert (before.top[:, 0] == full.top[:, 0]).mean() > 0.95
    fewer = fit_live(features, np.where(labels < classes - 1, labels, -1), classes - 1, 0, before)
    assert fewer is not None
    assert fewer.top.max() < classes - 1
