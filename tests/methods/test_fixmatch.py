"""FixMatch and BOSS: their formulas, with and without a refiner, and the two ways of the weak pass."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from small_learners import (
    IMAGES,
    REFINERS,
    K,
    agreement,
    blended,
    build,
    check_formula,
    logits_of,
    make_batch,
    make_network,
    soft_cross_entropy,
)
from torch import Tensor
from torch.nn import functional as F

from daso.methods.method import Batch
from daso.nets.network import Network


def fixmatch_weights(confidence: list[float], labels: list[int]) -> list[float]:
    return [float(c >= 0.3) for c in confidence]


def boss_weights(confidence: list[float], labels: list[int]) -> list[float]:
    counts = Counter(labels)
    thresholds = [0.3 - 0.1 * (1 - counts[k] / max(counts.values())) for k in labels]
    raw = [(c >= t) / counts[k] for c, t, k in zip(confidence, thresholds, labels, strict=True)]
    return [weight * sum(w > 0 for w in raw) / sum(raw) for weight in raw]


@IMAGES
@REFINERS
@pytest.mark.parametrize("weak_pass", ["joint", "apart"])
@pytest.mark.parametrize("name", ["fixmatch", "boss"])
def test_the_confident_refined_guess_teaches_the_strong_view(
    name: str,
    weak_pass: str,
    refine: Callable[[Tensor], Tensor],
    channels: int,
    size: int,
    resolution: int | None,
) -> None:
    def formula(
        network: Network, teacher: Network, batch: Batch, refine: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        weak, strong = batch.unlabeled
        guesses = [refine(row.detach().softmax(0)) for row in logits_of(network, weak)]
        labels = [int(p.argmax()) for p in guesses]
        weigh = fixmatch_weights if name == "fixmatch" else boss_weights
        weights = weigh([p.max().item() for p in guesses], labels)
        rows = zip(weights, logits_of(network, strong), labels, strict=True)
        taught = [-weight * row.log_softmax(0)[label] for weight, row, label in rows]
        given = [torch.eye(K)[label] for label in batch.labels]
        losses = {
            "labeled": soft_cross_entropy(logits_of(network, batch.labeled[0]), given),
            "unlabeled": 0.7 * torch.stack(taught).mean(),
        }
        if refine is blended:
            pairs = zip(guesses, [network(image[None])[0] for image in strong], strict=True)
            losses["agreement"] = torch.stack([agreement(p, z) for p, z in pairs]).mean()
        return losses

    options = {"threshold": 0.3, "unlabeled_weight": 0.7, "weak_pass": weak_pass}
    options |= {"threshold_range": 0.1} if name == "boss" else {}
    check_formula(build(name, **options), formula, refine, 5, channels, size, resolution)


@pytest.mark.parametrize(("weak_pass", "together"), [("joint", (0, 1, 2)), ("apart", (0, 2))])
def test_what_shares_a_pass_shares_its_batch_statistics(
    weak_pass: str, together: tuple[int, ...]
) -> None:
    method, network = build("fixmatch", threshold=0.0, weak_pass=weak_pass), make_network()
    batch = make_batch(method, labeled=8, unlabeled=12)
    parts = [*batch.labeled, *batch.unlabeled]
    losses = method(network, network, batch).losses
    features = network(torch.cat([parts[part] for part in together]))
    labels = network.classify(network(parts[1]) if weak_pass == "apart" else features[8:20]).argmax(
        1
    )
    expected = {"labeled": (features[:8], batch.labels), "unlabeled": (features[-12:], labels)}
    for loss, (found, target) in expected.items():
        torch.testing.assert_close(losses[loss], F.cross_entropy(network.classify(found), target))
