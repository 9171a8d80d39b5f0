"""The variants with another classifier than their head, CDMAD and CoSSL, against their formulas."""

from __future__ import annotations

import torch
from plain_losses import best, cross_entropy, guesses_of, labeled_loss, mean_loss, softmax
from small_learners import COUNTS, K, build, make_batch, make_network

STEPS = 6


def test_cdmad_corrects_its_guesses_by_a_blank_image() -> None:
    method = build("cdmad", unlabeled_weight=0.7, threshold=0.6, debias_start=0.002, blank_value=9)
    network, teacher = make_network().eval(), make_network(1).train()
    with torch.no_grad():
        network.heads["class"].weight /= 4
    masks = []
    for number in range(STEPS):
        batch = make_batch(method, number, unlabeled=12)
        step = method(network, teacher, batch)
        blank, labeled, weak, strong = (
            network.classify(network(view))
            for view in (
                torch.full((1, 1, 8, 8), 9, dtype=torch.uint8),
                *batch.labeled,
                *batch.unlabeled,
            )
        )
        # The first guesses are before the start, the others after it.
        targets = [softmax(row) for row in (weak - (number >= 2) * blank).tolist()]
        rows = zip(strong, targets, strict=True)
        unlabeled = mean_loss([(max(p) >= 0.6) * cross_entropy(row, p) for row, p in rows])
        torch.testing.assert_close(step.losses["labeled"], labeled_loss(batch, labeled))
        torch.testing.assert_close(step.losses["unlabeled"], 0.7 * unlabeled)
        masks.append(step.pseudo_labels.mask)
        method.end_step(network, teacher, batch)
        with torch.no_grad():
            network.encoder.convolution.weight.mul_(1.05)  # the next blank image is another one's
            method.end_step(network, teacher, batch)
        assert teacher.training, "the mode is left as it was"
    used = torch.cat(masks)
    assert 0 < used.sum() < len(used)
    teacher.eval()
    image, blank = batch.labeled[0], torch.full((1, 1, 8, 8), 9, dtype=torch.uint8)
    expected = teacher.classify(teacher(image)) - teacher.classify(teacher(blank))
    torch.testing.assert_close(teacher.classify(teacher(image), method.output), expected)


def test_cossl_learns_a_classifier_on_enhanced_features_of_the_teacher() -> None:
    options = {"threshold": 0.6, "colearning_start": 0.002, "least_ratio": 0.3}
    method = build("cossl", unlabeled_weight=0.7, **options)
    network, teacher = make_network().eval(), make_network(1).eval()
    with torch.no_grad():
        for head in ("class", "enhanced"):
            network.heads[head].weight /= 6  # so that guesses are less certain
    masks, enhanced = [], 0
    for number in range(STEPS):
        batch = make_batch(method, number, unlabeled=12)
        step = method(network, teacher, batch)
        labeled, weak, strong = (
            network.classify(network(view)) for view in (*batch.labeled, *batch.unlabeled)
        )
        with torch.no_grad():
            seen = torch.cat([teacher(batch.labeled[0]), teacher(batch.unlabeled[0])])
        learned = network.classify(seen[8:], "enhanced")
        # The first guesses are before the start, the others after it.
        guesses = guesses_of(learned if number >= 2 else weak)
        rows = zip(strong, guesses, strict=True)
        unlabeled = mean_loss([(max(p) >= 0.6) * cross_entropy(row, best(p)) for row, p in rows])

        losses = []
        for image, label in enumerate(batch.labels.tolist()):
            chance, other, ratio = (float(value) for value in batch.draws["cossl"][:, image])
            feature = seen[image]
            if chance < (max(COUNTS.tolist()) - int(COUNTS[label])) / max(COUNTS.tolist()):
                ratio = 0.3 + 0.7 * ratio
                feature = ratio * feature + (1 - ratio) * seen[int(other * 20)]
                enhanced += 1
            logits = network.classify(feature[None], "enhanced")[0]
            share = int(COUNTS[label]) / int(COUNTS.sum())
            losses.append(cross_entropy(logits, label) / (K * share))
        expected = {
            "labeled": labeled_loss(batch, labeled),
            "unlabeled": 0.7 * unlabeled,
            "classifier": mean_loss(losses),
        }
        assert step.losses.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(step.losses[name], value, rtol=1e-6, atol=1e-9)
        (gradient,) = torch.autograd.grad(
            step.losses["classifier"], network.encoder.convolution.weight, allow_unused=True
        )
        assert gradient is None, "the classifier does not teach the encoder"
        masks.append(step.pseudo_labels.mask)
    used = torch.cat(masks)
    assert 0 < used.sum() < len(used)
    assert 0 < enhanced < 8 * STEPS
    assert method.output == "enhanced"
