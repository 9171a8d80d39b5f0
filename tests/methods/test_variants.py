"""The variants of FixMatch against their formulas, image by image, over several steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_losses import (
    best,
    cross_entropy,
    guesses_of,
    labeled_loss,
    logs,
    mean_loss,
    mean_of,
    moved,
    softmax,
)
from small_learners import COUNTS, K, build, make_batch, make_network
from torch import Tensor

from daso.catalog import METHODS, hyperparameters, outline
from daso.compose import Recipe
from daso.errors import OptionError
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch

STEPS, TOTAL = 6, 1000
Losses = dict[str, Tensor]
Formula = Callable[[int, Batch, Tensor, Tensor, Tensor], Losses]
"""From step, batch and the logits of labeled, weak and strong images to the losses by name.

Of ACR the logits of both heads stand beside one another, (N, 2 K).
"""
LABELED = (COUNTS.double() / COUNTS.sum()).tolist()


def freematch(threshold: float = 1.0, decay: float = 0.2) -> Formula:
    confidence, mean, share = 1 / K, [1 / K] * K, [1 / K] * K

    def step(number: int, batch: Batch, labeled: Tensor, weak: Tensor, strong: Tensor) -> Losses:
        nonlocal confidence, mean, share
        guesses = guesses_of(weak)
        now = sum(map(max, guesses)) / len(guesses)
        confidence = decay * confidence + (1 - decay) * now
        mean = moved(mean, mean_of(guesses), decay)
        shares = [sum(best(p) == k for p in guesses) / len(guesses) for k in range(K)]
        share = moved(share, shares, decay)
        limits = [min(confidence, threshold) * p / max(mean) for p in mean]
        used = [max(p) >= limits[best(p)] for p in guesses]
        per_image = [
            u * cross_entropy(s, best(p)) for u, s, p in zip(used, strong, guesses, strict=True)
        ]
        rows = [row.exp() / row.exp().sum() for row, u in zip(strong, used, strict=True) if u]
        guessed = [int(row.argmax()) for row in rows]
        ratio = [
            sum(row[k] for row in rows) / guessed.count(k) if k in guessed else torch.zeros(())
            for k in range(K)
        ]
        target = [p / h for p, h in zip(mean, share, strict=True)]
        terms = [
            t / sum(target) * (r / sum(ratio) + 1e-12).log()
            for t, r in zip(target, ratio, strict=True)
        ]
        fairness: Any = 0.2 * sum(terms) if rows else torch.zeros(())
        return {
            "labeled": labeled_loss(batch, labeled),
            "unlabeled": 0.7 * mean_loss(per_image),
            "fairness": fairness,
        }

    return step


def softmatch(aligned: bool = True, decay: float = 0.2) -> Formula:
    mean, variance, mean_guess = 1 / K, 1.0, [0.0] * K

    def step(number: int, batch: Batch, labeled: Tensor, weak: Tensor, strong: Tensor) -> Losses:
        nonlocal mean, variance, mean_guess
        guesses = guesses_of(weak)
        now = mean_of(guesses)
        mean_guess = now if number == 0 else moved(mean_guess, now, decay)
        confidences = []
        for probs in guesses:
            parts = [
                p * (1 / K + 1e-6) / (q + 1e-6) for p, q in zip(probs, mean_guess, strict=True)
            ]
            confidences.append(max(parts) / sum(parts) if aligned else max(probs))
        center = sum(confidences) / len(confidences)
        spread = sum((c - center) ** 2 for c in confidences) / (len(confidences) - 1)
        mean, variance = (
            decay * mean + (1 - decay) * center,
            decay * variance + (1 - decay) * spread,
        )
        weights = [math.exp(-(min(c - mean, 0) ** 2) / (2 * variance / 2**2)) for c in confidences]
        rows = zip(weights, strong, guesses, strict=True)
        unlabeled = 0.7 * mean_loss([w * cross_entropy(s, best(p)) for w, s, p in rows])
        return {"labeled": labeled_loss(batch, labeled), "unlabeled": unlabeled}

    return step


def debiaspl(decay: float = 0.999, debias: float = 0.8, threshold: float = 0.6) -> Formula:
    mean = [1 / K] * K

    def step(number: int, batch: Batch, labeled: Tensor, weak: Tensor, strong: Tensor) -> Losses:
        nonlocal mean
        debiased = [softmax(row) for row in (weak - debias * logs(mean)).tolist()]
        mean = moved(mean, mean_of(guesses_of(weak)), decay)
        rows = zip(strong, debiased, strict=True)
        per_image = [
            (max(p) >= threshold) * cross_entropy(s, best(p), debias * logs(mean)) for s, p in rows
        ]
        unlabeled = 0.7 * mean_loss(per_image)
        return {"labeled": labeled_loss(batch, labeled), "unlabeled": unlabeled}

    return step


def simpro(threshold: float = 0.6, strength: float = 2.0) -> Formula:
    unlabeled_share, share = [1 / K] * K, LABELED
    guessed, counted = [0.0] * K, [0.0] * K

    def step(number: int, batch: Batch, labeled: Tensor, weak: Tensor, strong: Tensor) -> Losses:
        nonlocal unlabeled_share, share, guessed, counted
        guesses = [softmax(row) for row in (weak + logs(unlabeled_share, strength)).tolist()]
        shift = logs(share, strength)
        scale = int(COUNTS.sum()) / 100 * len(weak) / len(labeled)
        used = [max(p) >= threshold for p in guesses]
        rows = zip(used, strong, guesses, strict=True)
        losses = {
            "labeled": scale * labeled_loss(batch, labeled, shift),
            "unlabeled": 0.7 * mean_loss([u * cross_entropy(s, p, shift) for u, s, p in rows]),
        }
        for k in range(K):
            counted[k] += batch.labels.tolist().count(k)
            guessed[k] += sum(p[k] for p, u in zip(guesses, used, strict=True) if u)
        if (number + 1) % 2 == 0:
            unlabeled_share = moved(unlabeled_share, [g / (sum(guessed) + 1) for g in guessed], 0.9)
            both = [a + b for a, b in zip(counted, guessed, strict=True)]
            share = moved(share, [b / sum(both) for b in both], 0.9)
            guessed, counted = [0.0] * K, [0.0] * K
        return losses

    return step


def adello(start: int = 0, threshold: float = 0.6) -> Formula:
    mean, temperature = [1 / K] * K, 1.0

    def step(number: int, batch: Batch, labeled: Tensor, weak: Tensor, strong: Tensor) -> Losses:
        nonlocal mean, temperature
        power = 1 - 0.9 * (number / TOTAL) ** 2
        target = [p**power / sum(q**power for q in mean) for p in mean]
        if number == start:
            temperature = math.exp(sum(math.log(1 / K / p) / K for p in mean))
        of_labels, of_strong = (logs(share) - logs(target) for share in (LABELED, mean))
        guesses, certain, unsure = guesses_of(weak), [], []
        for row, probs in zip(strong, guesses, strict=True):
            soft = softmax([math.log(p) / temperature for p in probs])
            used = max(probs) >= threshold
            certain.append(used * cross_entropy(row, best(probs), of_strong))
            shifted = (row + of_strong) / temperature
            unsure.append((not used) * (number >= start) * cross_entropy(shifted, soft))
        mean = moved(mean, mean_of(guesses), 0.999)
        return {
            "labeled": labeled_loss(batch, labeled, of_labels),
            "unlabeled": 0.7 * mean_loss(certain),
            "complementary": 0.3 * mean_loss(unsure),
        }

    return step


def divergence(p: list[float], q: list[float]) -> float:
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2


def acr(start: int = 0, threshold: float = 0.6) -> Formula:
    strength, share, sums = 2.0, [1 / K] * K, [0.0, 0.0, 0.0]

    def step(number: int, batch: Batch, labeled: Tensor, weak: Tensor, strong: Tensor) -> Losses:
        nonlocal strength, share, sums
        first, second = [], []
        plain = guesses_of(weak[:, :K])
        balanced = guesses_of(weak[:, K:])
        for row, guess, other, views in zip(weak[:, :K], plain, balanced, strong, strict=True):
            adjusted = softmax((row - logs(LABELED, strength)).tolist())
            used = max(adjusted) >= threshold or max(guess) >= threshold
            first.append(used * cross_entropy(views[:K], best(adjusted)))
            adjusted = softmax((row - logs(LABELED, 2.0)).tolist())
            used = max(adjusted) >= threshold or max(other) >= threshold
            second.append(used * cross_entropy(views[K:], best(adjusted)))
        confident = [best(p) for p in balanced if max(p) >= threshold]
        if number >= start and confident:
            share = moved(share, [confident.count(k) / len(confident) for k in range(K)], 0.9)
            anchors = (LABELED, [1 / K] * K, LABELED[::-1])
            sums = [old + divergence(a, share) for old, a in zip(sums, anchors, strict=True)]
        if (number + 1) % 2 == 0:
            if any(sums):
                strength = 2 * softmax([total / 2 for total in sums])[0]
            sums = [0.0, 0.0, 0.0]
        return {
            "labeled": labeled_loss(batch, labeled[:, :K]),
            "unlabeled": 0.7 * mean_loss(first),
            "balanced_labeled": labeled_loss(batch, labeled[:, K:], logs(LABELED, 2.0)),
            "balanced_unlabeled": mean_loss(second),
        }

    return step


CASES: dict[str, tuple[str, Callable[[], Formula], dict[str, Any]]] = {
    "freematch": ("freematch", freematch, {"fairness_weight": 0.2, "mean_decay": 0.2}),
    "freematch, limited": (
        "freematch",
        lambda: freematch(threshold=0.5),
        {"fairness_weight": 0.2, "mean_decay": 0.2, "threshold": 0.5},
    ),
    "softmatch": ("softmatch", softmatch, {"mean_decay": 0.2}),
    "softmatch, as it is": (
        "softmatch",
        lambda: softmatch(aligned=False),
        {"uniform_alignment": False, "mean_decay": 0.2},
    ),
    "debiaspl": (
        "debiaspl",
        lambda: debiaspl(decay=0.5),
        {"threshold": 0.6, "debias": 0.8, "mean_decay": 0.5},
    ),
    "acr": ("acr", acr, {"threshold": 0.6}),
    "acr, later": ("acr", lambda: acr(start=3), {"threshold": 0.6, "estimate_start": 0.003}),
    "simpro": ("simpro", simpro, {"threshold": 0.6}),
    "adello": ("adello", adello, {"threshold": 0.6, "complementary_weight": 0.3}),
    "adello, later": (
        "adello",
        lambda: adello(start=3),
        {"threshold": 0.6, "complementary_weight": 0.3, "complementary_start": 0.003},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_formulas(case: str) -> None:
    name, formula, options = CASES[case]
    method, expect = build(name, unlabeled_weight=0.7, **options), formula()
    network = make_network().eval()
    with torch.no_grad():
        for head in ("class", "balanced"):
            network.heads[head].weight /= 4  # so that guesses are less certain
    masks = []
    for number in range(STEPS):
        batch = make_batch(method, number, unlabeled=12)
        step = method(network, network, batch)
        heads = ["class", "balanced"] if name == "acr" else ["class"]
        logits = [
            torch.cat([network.classify(network(view), head) for head in heads], 1)
            for view in (*batch.labeled, *batch.unlabeled)
        ]
        expected = expect(number, batch, logits[0], logits[1].detach(), logits[2])
        assert step.losses.keys() == expected.keys()
        actual = torch.stack(list(step.losses.values()))
        wanted = torch.stack([expected[key] for key in step.losses])
        torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-9)
        gradients = [
            torch.autograd.grad(losses.sum(), network.encoder.convolution.weight)[0]
            for losses in (actual, wanted)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
        masks.append(step.pseudo_labels.mask)
    used = torch.cat(masks)
    assert 0 < used.sum() < len(used), "some images must count and others not"


def test_a_variant_takes_what_fixmatch_takes_but_what_it_refuses() -> None:
    shared = {each.name: each for each in hyperparameters(FixMatch)}
    for name, refused in (("freematch", set()), ("softmatch", {"threshold"}), ("simpro", set())):
        found = {each.name: each for each in hyperparameters(outline(METHODS[name]))}
        assert shared.keys() - found.keys() == refused
        assert found["weak_pass"].help == shared["weak_pass"].help
        assert found["weak_pass"].part != "FixMatch"
    with pytest.raises(OptionError, match="threshold"):
        build("softmatch", threshold=0.9)
    with pytest.raises(OptionError, match="estimated distribution"):
        Recipe.parse("simpro+la")
    assert Recipe.parse("freematch+la+abc+daso").slots() == ["supervised", "refine", "terms"]


def test_without_confident_guesses_the_fairness_loss_is_0() -> None:
    method, network = build("freematch", threshold=1.0), make_network().eval()
    method.confidence.fill_(1.0)
    method.mean_decay = 1.0
    losses = method(network, network, make_batch(method)).losses
    assert losses["fairness"] == losses["unlabeled"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_an_estimate_that_a_training_never_renews_is_remarked() -> None:
    for name, option in (("simpro", "prior_period"), ("acr", "estimate_period")):
        (said,) = Recipe.parse(name).remarks({option: 500}, 400)
        assert f"--{option.replace('_', '-')}" in said
        advised = int(said.split()[-1])
        assert not Recipe.parse(name).remarks({option: advised}, 400)
