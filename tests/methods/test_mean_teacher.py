"""Mean Teacher: its formula, with and without a refiner, and where it teaches nothing."""

from collections.abc import Callable

import torch
from small_learners import (
    IMAGES,
    REFINERS,
    K,
    build,
    check_formula,
    logits_of,
    make_batch,
    make_network,
    soft_cross_entropy,
)
from torch import Tensor

from daso.methods.method import Batch
from daso.nets.network import Network

HALF_RAMP = 200


def formula(
    network: Network, teacher: Network, batch: Batch, refine: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    student, target = logits_of(network, batch.unlabeled[0]), logits_of(teacher, batch.unlabeled[1])
    pairs = zip(student, target, strict=True)
    squares = [(s.softmax(0) - refine(t.detach().softmax(0))) ** 2 for s, t in pairs]
    labels = [torch.eye(K)[label] for label in batch.labels]
    return {
        "labeled": soft_cross_entropy(logits_of(network, batch.labeled[0]), labels),
        "unlabeled": 0.5 * 50 * torch.stack(squares).sum() / (K * len(squares)),
    }


@IMAGES
@REFINERS
def test_the_teachers_refined_guess_is_the_target_of_the_other_view(
    refine: Callable[[Tensor], Tensor], channels: int, size: int, resolution: int | None
) -> None:
    check_formula(build("meanteacher"), formula, refine, HALF_RAMP, channels, size, resolution)


def test_a_teacher_that_is_the_student_and_sees_what_it_sees_teaches_nothing() -> None:
    method, network = build("meanteacher"), make_network().eval()
    batch = make_batch(method, 500)
    losses = method(network, network, batch._replace(unlabeled=batch.unlabeled[:1] * 2)).losses
    assert losses["unlabeled"] == 0
