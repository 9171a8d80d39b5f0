"""USADTM: agreement with the authors' code over a sequence of steps, its formula image by image, its loss's limits."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_learners import FeaturesAsImages
from torch import Tensor
from torch.nn import functional as F

from daso.methods.method import Batch
from daso.methods.usadtm import USADTM, mutual_information

REFERENCE = Path(__file__).parent.parent / "reference" / "usadtm_k6.npz"
K, D = 4, 6
COUNTS = torch.tensor([4, 2, 1, 1])


def make_network() -> FeaturesAsImages:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(K, D, generator=generator).double()
    return FeaturesAsImages(weight, torch.randn(K, generator=generator).double())


def make(**options: Any) -> USADTM:
    return USADTM(COUNTS, D, 100, **options).double()


def make_batch(step: int, labeled: int = 8, unlabeled: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(step)
    centers = 3 * torch.randn(K, D, generator=torch.Generator().manual_seed(99)).double()
    labels = torch.arange(labeled) % (K - (step == 0))
    truth = torch.randint(0, K, (unlabeled,), generator=generator)

    def near(classes: Tensor, noise: float) -> Tensor:
        return centers[classes] + noise * torch.randn(len(classes), D, generator=generator)

    views = tuple(near(truth, noise) for noise in (0.5, 1.5, 2.0))
    return Batch((near(labels, 1.0),), labels, views, torch.arange(unlabeled), torch.tensor(step))


def test_every_step_agrees_with_the_authors() -> None:
    stored = np.load(REFERENCE)
    config = json.loads(str(stored["config"]))
    vectors = {key: torch.from_numpy(value) for key, value in stored.items() if value.ndim}
    vectors = {k: v.double() if v.is_floating_point() else v for k, v in vectors.items()}
    steps = len(vectors["labels"])
    method = USADTM(
        torch.tensor(config["queue_lengths"]) // 5,
        config["feature_dim"],
        steps,
        cosine_threshold=config["cosine_threshold"],
        information_weight=config["mutual_information_weight"],
        warmup_steps=config["pretrain_steps"],
    ).double()
    network = FeaturesAsImages(vectors["class_weight"], vectors["class_bias"])
    taught = 0
    for step in range(steps):
        at = {key: value[step] for key, value in vectors.items() if len(value) == steps}
        views = tuple(at[f"{name}_features"] for name in ("identity", "weak", "strong"))
        batch = Batch(
            (at["labeled_features"],),
            at["labels"],
            views,
            torch.arange(len(views[0])),
            torch.tensor(step),
        )
        result = method(network, network, batch)
        taught += int(result.pseudo_labels.mask.sum())
        for actual, expected in (
            (method.queue.prototypes, "prototypes"),
            (result.losses["labeled"], "loss_cls"),
            (result.losses["information"], "loss_mutual_information"),
            (result.losses["unlabeled"], "loss_cons"),
        ):
            torch.testing.assert_close(actual, at[expected], rtol=1e-5, atol=1e-6)
    assert taught > steps


def plain_information(first: Tensor, second: Tensor) -> float:
    joint = [[0.0] * K for _ in range(K)]
    for p, q in zip(first.tolist(), second.tolist(), strict=True):
        for i in range(K):
            for j in range(K):
                joint[i][j] += (p[i] * q[j] + q[i] * p[j]) / (2 * len(first))
    row = [sum(line) for line in joint]
    return sum(
        joint[i][j] * math.log(joint[i][j] / (row[i] * row[j])) for i in range(K) for j in range(K)
    )


def test_the_losses_are_the_formula_image_by_image() -> None:
    network = make_network()
    method = make(cosine_threshold=0.8, unlabeled_weight=0.7, warmup_steps=1)
    queues: list[list[Tensor]] = [[] for _ in range(K)]
    taught = 0
    for step in range(4):
        batch = make_batch(step)
        result = method(network, network, batch)
        for feature, label in zip(batch.labeled[0], batch.labels.tolist(), strict=True):
            queues[label] = [*queues[label], feature][-5 * int(COUNTS[label]) :]
        prototypes = [sum(queue, torch.zeros(D)) / max(1, len(queue)) for queue in queues]
        total = 0.0
        for row, weak in enumerate(batch.unlabeled[1]):
            cosines = torch.stack([F.cosine_similarity(weak, c, dim=0) for c in prototypes])
            distances = torch.stack([(weak - c).norm() for c in prototypes])
            label = int(cosines.argmax())
            teaches = step >= 1 and cosines.max() >= 0.8 and label == distances.argmin()
            assert result.pseudo_labels.labels["final"][row] == label
            assert result.pseudo_labels.mask[row] == teaches
            taught += bool(teaches)
            if teaches:
                total -= network.classify(batch.unlabeled[2][row]).log_softmax(0)[label].item()
        probs = [network.classify(view).softmax(1) for view in batch.unlabeled]
        pairs = [(0, 1), (0, 2), (1, 2)]
        information = sum(plain_information(probs[i], probs[j]) for i, j in pairs) / 3
        assert result.losses["unlabeled"].item() == pytest.approx(0.7 * total / 12, rel=1e-9)
        assert result.losses["information"].item() == pytest.approx(-0.1 * information, rel=1e-9)
    assert 0 < taught < 36


def test_views_that_agree_on_all_classes_share_the_most_information_and_unrelated_ones_none() -> (
    None
):
    certain = F.one_hot(torch.arange(12) % K, K).double()
    torch.testing.assert_close(mutual_information(certain, certain).item(), math.log(K))
    flat = torch.full((12, K), 1 / K, dtype=torch.float64)
    assert abs(mutual_information(certain, flat).item()) < 1e-12
    one_class = F.one_hot(torch.zeros(12, dtype=torch.int64), K).double().requires_grad_()
    information = mutual_information(one_class, one_class)
    information.backward()
    assert abs(information.item()) < 1e-12
    assert one_class.grad.isfinite().all()


def test_the_moving_average_has_no_part_in_it() -> None:
    class Other(FeaturesAsImages):
        def forward(self, features: Tensor) -> Tensor:
            pytest.fail("the moving average was asked")

    network, average = make_network(), Other(torch.zeros(K, D), torch.zeros(K))
    result = make(cosine_threshold=-1.0, warmup_steps=0)(network, average, make_batch(1))
    assert result.losses["unlabeled"] > 0


def test_no_gradient_flows_through_the_pseudo_label() -> None:
    network = make_network()
    method = make(cosine_threshold=-1.0, warmup_steps=0)
    method(network, network, make_batch(1))
    batch = make_batch(2)
    labeled = batch.labeled[0].requires_grad_()
    views = tuple(view.requires_grad_() for view in batch.unlabeled)
    method(network, network, batch._replace(labeled=(labeled,))).losses["unlabeled"].backward()
    moved = [
        images.grad is not None and bool(images.grad.abs().max() > 0)
        for images in (labeled, *views)
    ]
    assert moved == [False, False, False, True]


def test_the_default_warm_up_is_the_authors_or_a_twentieth() -> None:
    assert USADTM(COUNTS, D, 250_000).warmup_steps == 500
    assert USADTM(COUNTS, D, 4000).warmup_steps == 200
