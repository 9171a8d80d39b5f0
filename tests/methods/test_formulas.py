"""Every learner against its formula, image by image, with and without a refiner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from small_learners import COUNTS, K, build, make_batch, make_network
from torch import Tensor
from torch.nn import functional as F

from daso.methods.method import Batch
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner

Refine = Callable[[Tensor], Tensor]
Formula = Callable[[Network, Network, Batch, Refine], dict[str, Tensor]]
"""From network, teacher, batch and what refines a guess to the losses by name."""


def unrefined(probs: Tensor) -> Tensor:
    return probs


def blended(probs: Tensor) -> Tensor:
    """Refine guesses so that other classes become likely, and not as before when sharpened after."""
    return 0.6 * probs.roll(1, -1) + 0.4 * torch.tensor([0.1, 0.2, 0.3, 0.4])


def agreement(probs: Tensor, strong: Tensor) -> Tensor:
    """Return a loss of the refined guess about an image and the features of its strong view."""
    return -0.1 * (probs * strong[:K].log_softmax(0)).sum()


class Blended(Refiner):
    """Refines by ``blended`` and adds a loss on the strong view."""

    def forward(self, guess: Guess) -> Guess:
        return guess._replace(probs=blended(guess.probs))

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        pairs = zip(guess.probs, strong, strict=True)
        return {"agreement": torch.stack([agreement(p, z) for p, z in pairs]).mean()}


def logits_of(network: Network, images: Tensor, head: str = "class") -> list[Tensor]:
    """Return the logits of each image, uint8 or float, passed alone."""
    return [network.classify(network(image[None]), head)[0] for image in images]


def cross_entropy(logits: list[Tensor], targets: list[Tensor]) -> Tensor:
    pairs = zip(logits, targets, strict=True)
    return torch.stack([-(target * row.log_softmax(0)).sum() for row, target in pairs]).mean()


def one_hot(labels: Tensor, classes: int = K) -> list[Tensor]:
    return list(torch.eye(classes, dtype=torch.float64)[labels])


def labeled_loss(network: Network, batch: Batch) -> Tensor:
    return cross_entropy(logits_of(network, batch.labeled[0]), one_hot(batch.labels))


def agreement_loss(network: Network, refine: Refine, targets: list[Tensor], strong: Tensor) -> Any:
    if refine is not blended:
        return {}
    pairs = zip(targets, (network(image[None])[0] for image in strong), strict=True)
    return {"agreement": torch.stack([agreement(p, z) for p, z in pairs]).mean()}


def mixtures(network: Network, batch: Batch, targets: list[Tensor]) -> tuple[Any, Any]:
    """Return the logits and the labels of the mixtures, row by row, given the targets of one view."""
    views = [*batch.labeled, *batch.unlabeled]
    images = [network.normalize(image[None])[0] for view in views for image in view]
    labels = one_hot(batch.labels) + targets * len(batch.unlabeled)
    factor, order = batch.draws["mixup_factor"], batch.draws["mixup_order"].tolist()
    mixed = [factor * images[i] + (1 - factor) * images[j] for i, j in enumerate(order)]
    labels = [factor * labels[i] + (1 - factor) * labels[j] for i, j in enumerate(order)]
    return logits_of(network, torch.stack(mixed)), labels


def pseudo_label(network: Network, teacher: Network, batch: Batch, refine: Refine) -> Any:
    per_image = []
    for row in logits_of(network, batch.unlabeled[0]):
        probs = refine(row.detach().softmax(0))
        per_image.append(-row.log_softmax(0)[probs.argmax()] * (probs.max() >= 0.4))
    unlabeled = 0.5 * torch.stack(per_image).mean()
    return {"labeled": labeled_loss(network, batch), "unlabeled": unlabeled}


def mean_teacher(network: Network, teacher: Network, batch: Batch, refine: Refine) -> Any:
    student, target = logits_of(network, batch.unlabeled[0]), logits_of(teacher, batch.unlabeled[1])
    pairs = zip(student, target, strict=True)
    squares = [(s.softmax(0) - refine(t.detach().softmax(0))) ** 2 for s, t in pairs]
    unlabeled = 0.5 * 50 * torch.stack(squares).sum() / (K * len(squares))
    return {"labeled": labeled_loss(network, batch), "unlabeled": unlabeled}


def mixmatch(network: Network, teacher: Network, batch: Batch, refine: Refine) -> Any:
    guesses = zip(*(logits_of(network, view) for view in batch.unlabeled), strict=True)
    means = [((a.softmax(0) + b.softmax(0)) / 2).detach() for a, b in guesses]
    logits, labels = mixtures(network, batch, [refine(p**2 / (p**2).sum()) for p in means])
    size = len(batch.labels)
    rows = zip(logits[size:], labels[size:], strict=True)
    squares = [(row.softmax(0) - label) ** 2 for row, label in rows]
    return {
        "labeled": cross_entropy(logits[:size], labels[:size]),
        "unlabeled": 0.5 * 100 * torch.stack(squares).mean(),
    }


def remixmatch(network: Network, teacher: Network, batch: Batch, refine: Refine) -> Any:
    probs = torch.stack(logits_of(network, batch.unlabeled[0])).detach().softmax(1)
    shares = COUNTS.double() / COUNTS.sum()
    aligned = [p * (shares + 1e-6) / (probs.mean(0) + 1e-6) for p in probs]
    targets = [refine(p**2 / (p**2).sum()) for p in aligned]
    logits, labels = mixtures(network, batch, targets)
    size, turns = len(batch.labels), batch.draws["rotations"]
    strong = [network.normalize(image[None])[0] for image in batch.unlabeled[1]]
    turned = [torch.rot90(image, int(k), (1, 2)) for image, k in zip(strong, turns, strict=True)]
    rotations = logits_of(network, torch.stack(turned), "rotation")
    return {
        "labeled": cross_entropy(logits[:size], labels[:size]),
        "unlabeled": 0.5 * 1.5 * cross_entropy(logits[size:], labels[size:]),
        "premix": 0.5 * 0.5 * cross_entropy(logits_of(network, batch.unlabeled[1]), targets),
        "rotation": 0.5 * cross_entropy(rotations, one_hot(turns, 4)),
        **agreement_loss(network, refine, targets, batch.unlabeled[1]),
    }


def fixmatch_weights(confidence: list[float], labels: list[int]) -> list[float]:
    return [float(c >= 0.3) for c in confidence]


def boss_weights(confidence: list[float], labels: list[int]) -> list[float]:
    counts = Counter(labels)
    thresholds = [0.3 - 0.1 * (1 - counts[k] / max(counts.values())) for k in labels]
    raw = [(c >= t) / counts[k] for c, t, k in zip(confidence, thresholds, labels, strict=True)]
    return [weight * sum(w > 0 for w in raw) / sum(raw) for weight in raw]


def weak_to_strong(weigh: Callable[[list[float], list[int]], list[float]]) -> Formula:
    def formula(network: Network, teacher: Network, batch: Batch, refine: Refine) -> Any:
        weak, strong = batch.unlabeled
        guesses = [refine(row.detach().softmax(0)) for row in logits_of(network, weak)]
        labels = [int(p.argmax()) for p in guesses]
        weights = weigh([p.max().item() for p in guesses], labels)
        rows = zip(weights, logits_of(network, strong), labels, strict=True)
        losses = [-weight * row.log_softmax(0)[label] for weight, row, label in rows]
        return {
            "labeled": labeled_loss(network, batch),
            "unlabeled": 0.7 * torch.stack(losses).mean(),
            **agreement_loss(network, refine, guesses, strong),
        }

    return formula


FIXMATCH, BOSS = weak_to_strong(fixmatch_weights), weak_to_strong(boss_weights)
LOW: dict[str, Any] = {"threshold": 0.3, "unlabeled_weight": 0.7}
FORMULAS: dict[str, tuple[Formula, str, dict[str, Any], int]] = {
    "pseudolabel": (pseudo_label, "pseudolabel", {}, 200),
    "meanteacher": (mean_teacher, "meanteacher", {}, 200),
    "mixmatch": (mixmatch, "mixmatch", {}, 8),
    "remixmatch": (remixmatch, "remixmatch", {}, 8),
    "fixmatch, joint": (FIXMATCH, "fixmatch", LOW, 5),
    "fixmatch, apart": (FIXMATCH, "fixmatch", {**LOW, "weak_pass": "apart"}, 5),
    "boss, joint": (BOSS, "boss", {**LOW, "threshold_range": 0.1}, 5),
    "boss, apart": (BOSS, "boss", {**LOW, "threshold_range": 0.1, "weak_pass": "apart"}, 5),
}
"""Formula, method, options and step; of a ramp the step is the middle."""


def gradient(losses: dict[str, Tensor], network: Network) -> list[Tensor]:
    network.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


@pytest.mark.parametrize("case", FORMULAS)
def test_losses_and_gradients_are_the_formulas(case: str) -> None:
    formula, name, options, step = FORMULAS[case]
    images = ((1, 8, None), (3, 12, 8))
    for refine, (channels, size, resolution) in product((unrefined, blended), images):
        method = build(name, **options)
        if refine is blended:
            method.refine = Blended()
        network, teacher = (make_network(seed, channels, resolution).eval() for seed in (0, 1))
        batch = make_batch(method, 3, channels=channels, size=size)
        batch = batch._replace(step=torch.tensor(step))
        losses = method(network, teacher, batch).losses
        expected = formula(network, teacher, batch, refine)
        assert losses.keys() == expected.keys()
        assert all(value > 0 for value in expected.values())
        torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-9, check_dtype=False)
        # The constants of alignment are rounded to float32.
        torch.testing.assert_close(
            gradient(losses, network), gradient(expected, network), rtol=1e-5, atol=1e-7
        )
        assert all(p.grad is None for p in teacher.parameters())


def test_the_mixture_teacher_teaches_what_the_readout_believes() -> None:
    for adjust, above in ((True, 0.0), (False, 0.0), (True, 0.5)):
        method = build("mixtureteacher", belief_temperature=0.5, unlabeled_weight=0.7)
        network, teacher = (make_network(seed).eval() for seed in (0, 1))
        batch = make_batch(method, 3)
        method.adjust_beliefs = adjust
        confidence = method(network, teacher, batch).pseudo_labels.confidence
        method.belief_threshold = max(0.0, float(confidence.quantile(above)) - 1e-9)
        readout = teacher.readout
        assert readout is not None
        prior = readout.prior if adjust else torch.ones(K).double()
        per_image, used = [], []
        plain, strong = batch.unlabeled
        for image, student in zip(plain, logits_of(network, strong), strict=True):
            unit = F.normalize(teacher(image[None])[0], dim=0)
            belief = prior * (2 * (unit @ readout.weight)).exp()
            belief = (belief / belief.sum()).detach()
            guess = prior * student.exp()
            used.append(float(belief.max() >= method.belief_threshold))
            per_image.append(-used[-1] * (belief * (guess / guess.sum()).log()).sum())
        assert sum(used) == (len(used) if above == 0 else len(used) / 2)
        expected = {
            "labeled": labeled_loss(network, batch),
            "unlabeled": 0.7 * torch.stack(per_image).mean(),
        }
        losses = method(network, teacher, batch).losses
        torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(gradient(losses, network), gradient(expected, network))
        assert all(p.grad is None for p in teacher.parameters())


def test_what_shares_a_pass_shares_its_batch_statistics() -> None:
    for weak_pass, together in (("joint", (0, 1, 2)), ("apart", (0, 2))):
        method, network = build("fixmatch", threshold=0.0, weak_pass=weak_pass), make_network()
        batch = make_batch(method, labeled=8, unlabeled=12)
        parts = [*batch.labeled, *batch.unlabeled]
        losses = method(network, network, batch).losses
        features = network(torch.cat([parts[part] for part in together]))
        weak = network(parts[1]) if weak_pass == "apart" else features[8:20]
        labels = network.classify(weak).argmax(1)
        expected = {
            "labeled": F.cross_entropy(network.classify(features[:8]), batch.labels),
            "unlabeled": F.cross_entropy(network.classify(features[-12:]), labels),
        }
        torch.testing.assert_close(losses, expected)


def test_at_its_threshold_a_guess_counts() -> None:
    for name in ("fixmatch", "pseudolabel"):
        method, network = build(name, threshold=0.0), make_network().eval()
        batch = make_batch(method)
        confidence = method(network, network, batch).pseudo_labels.confidence
        method.threshold = float(confidence.median())
        used = method(network, network, batch).pseudo_labels.mask > 0
        assert torch.equal(used, confidence >= method.threshold), name
        assert 0 < used.sum() < len(used)


def test_a_teacher_that_is_the_student_and_has_its_view_teaches_nothing() -> None:
    method, network = build("meanteacher"), make_network().eval()
    batch = make_batch(method, 500)
    losses = method(network, network, batch._replace(unlabeled=batch.unlabeled[:1] * 2)).losses
    assert losses["unlabeled"] == 0


def test_supervised_learning_is_cross_entropy_without_the_unlabeled_images() -> None:
    method, network = build("supervised"), make_network()
    batch = make_batch(method)
    assert batch.unlabeled == ()
    logits = network.classify(network(batch.labeled[0]))
    losses = method(network, network, batch).losses
    torch.testing.assert_close(losses, {"labeled": F.cross_entropy(logits, batch.labels)})
