"""DASO: distribution-aware semantics-oriented pseudo-labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError
from daso.refine.guess import Guess, Refiner
from daso.refine.queue import PrototypeQueue

Blend = Literal["distribution", "linear", "semantic", "fixed"]


class DASO(Refiner):
    """Blends a classifier's pseudo-labels with those of class prototypes, more where pseudo-labels abound.

    A linear classifier trained on imbalanced labels favours frequent classes, a nearest-prototype classifier
    rare ones. Each guess leans on the prototypes in proportion to how often its class has been guessed lately,
    so no prior of the unlabelled data is needed.

    Oh, Kim, Kweon: *Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced Semi-Supervised
    Learning*, CVPR 2022, arXiv 2106.05682, section 3 and algorithms 1 and 2:

    * prototypes c_k: means of balanced queues of labelled features of the moving-average network (3.2);
    * semantic label q = softmax(cos(z, c_k) / T_proto);
    * m: share of each class among the final pseudo-labels of the last period;
      v_k = m_k^(1/T_dist) / max_j m_j^(1/T_dist); k' = argmax p; p' = (1 - v_k') p + v_k' q (3.3);
    * semantic alignment loss: cross-entropy of q on the strong view towards q on the weak view (3.4).

    Args:
        num_classes: K.
        dim: D, the length of a feature.
        class_counts: int64, (K,), labelled images of each class.
        total_steps: of the training; only the default of *warmup_steps* depends on it.
        queue_length: L, features kept per class.
        prototype_temperature: T_proto, > 0.
        dist_temperature: T_dist, > 0; the paper takes 1.5 where labelled and unlabelled images are distributed
            alike and 0.3 where they are not. Smaller: fewer classes lean on the prototypes.
        align_weight: lambda_align, weight of the semantic alignment loss; 0 turns it off.
        warmup_steps: P; blending and alignment act from this step on, the queue and the histogram fill before.
            Default: 5,000 as in the paper, but at most a fifth of the training.
        histogram_period: steps after which m is renewed, from the pseudo-labels since the last renewal.
        blend: how much a guess leans on the prototypes, v: ``"distribution"``: by how often its class has been guessed
            lately; ``"linear"``: 0, not at all; ``"semantic"``: 1, the prototypes alone; ``"fixed"``: *fixed_blend*.
        fixed_blend: v for the blend ``"fixed"``, 0 to 1.
        balanced_queue: the same queue length for every class, or else 5 features per labelled image of a class.
        queue_encoder: ``"ema"``: queue the features of the moving average; ``"online"``: of the network itself.
        queue_batch_statistics: the moving average normalises the queued features by the statistics of the
            labelled batch, and its running statistics see that batch, as in the authors' code; else it uses its
            running statistics.

    Raises:
        OptionError: a value is out of range.

    Departures from the authors' code: before the first renewal of the histogram v is 0 (theirs would divide
    zero by zero if the warm-up were shorter than the period).
    """

    paper = "Oh, Kim & Kweon, CVPR 2022, arXiv 2106.05682"
    histogram: Tensor
    distribution: Tensor
    observes = True
    replaces_alignment = True

    def __init__(
        self,
        num_classes: int,
        dim: int,
        class_counts: Tensor,
        total_steps: int,
        *,
        queue_length: int = 256,
        prototype_temperature: float = 0.05,
        dist_temperature: float = 1.5,
        align_weight: float = 1.0,
        warmup_steps: int | None = None,
        histogram_period: int = 100,
        blend: Blend = "distribution",
        fixed_blend: float = 0.5,
        balanced_queue: bool = True,
        queue_encoder: Literal["ema", "online"] = "ema",
        queue_batch_statistics: bool = True,
    ) -> None:
        super().__init__()
        if warmup_steps is None:
            warmup_steps = min(5000, total_steps // 5)
        for name, value, valid in (
            ("queue_length", queue_length, queue_length >= 1),
            ("prototype_temperature", prototype_temperature, 0 < prototype_temperature < math.inf),
            ("dist_temperature", dist_temperature, 0 < dist_temperature < math.inf),
            ("align_weight", align_weight, 0 <= align_weight < math.inf),
            ("warmup_steps", warmup_steps, warmup_steps >= 0),
            ("histogram_period", histogram_period, histogram_period >= 1),
            ("blend", blend, blend in ("distribution", "linear", "semantic", "fixed")),
            ("fixed_blend", fixed_blend, 0 <= fixed_blend <= 1),
            ("queue_encoder", queue_encoder, queue_encoder in ("ema", "online")),
        ):
            if not valid:
                raise OptionError(f"DASO: {name} = {value!r} is out of range")
        lengths = (
            torch.full((num_classes,), queue_length) if balanced_queue else 5 * class_counts.cpu()
        )
        self.queue = PrototypeQueue(lengths, dim)
        self.register_buffer("histogram", torch.zeros(num_classes))
        self.register_buffer("distribution", torch.zeros(num_classes))
        self.prototype_temperature = prototype_temperature
        self.dist_temperature = dist_temperature
        self.align_weight = align_weight
        self.warmup_steps = warmup_steps
        self.histogram_period = histogram_period
        self.blend = blend
        self.fixed_blend = fixed_blend
        self.queue_length = queue_length
        self.balanced_queue = balanced_queue
        self.queue_encoder = queue_encoder
        self.observes_network = queue_encoder == "online"
        self.queue_batch_statistics = queue_batch_statistics

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        """As ``queue_batch_statistics`` says."""
        return self.queue_batch_statistics

    @torch.no_grad()
    def observe(
        self,
        images: Tensor,
        features: Tensor | None,
        labels: Tensor,
        teacher: Callable[[Tensor], Tensor],
    ) -> None:
        """Queue the features of the labelled images."""
        if self.queue_encoder == "ema":
            features = teacher(images)
        assert features is not None
        self.queue.push(features, labels)

    def semantic_logits(self, features: Tensor) -> Tensor:
        """Return cos(z, c_k) / T_proto, (N, K), of features (N, D)."""
        return self.queue.similarity(features) / self.prototype_temperature

    def weights(self) -> Tensor:
        """Return v, float (K,): how much a guess of each class leans on the prototypes (equation 3)."""
        if self.blend == "distribution":
            # Divided first: the power of a small share could vanish.
            return (self.distribution / self.distribution.max().clamp(min=1e-12)) ** (
                1 / self.dist_temperature
            )
        constant = {"linear": 0.0, "semantic": 1.0, "fixed": self.fixed_blend}[self.blend]
        return torch.full_like(self.distribution, constant)

    def describe(self) -> dict[str, list[float]]:
        """Return the blending weight v of each class and the images of each class that were queued."""
        return {"blend_weight": self.weights().tolist(), "queued": self.queue.seen.tolist()}

    @torch.no_grad()
    def forward(self, guess: Guess) -> Guess:
        """Blend the guess with the semantic label and count the result."""
        semantic = self.semantic_logits(guess.features).softmax(1)
        weights = self.weights() * (guess.step >= self.warmup_steps)

        def blend(probs: Tensor) -> Tensor:
            v = weights[probs.argmax(1)][:, None]
            return (1 - v) * probs + v * semantic

        probs, others = (
            blend(guess.probs),
            {name: blend(other) for name, other in guess.others.items()},
        )

        renew = (guess.step + 1) % self.histogram_period == 0
        self.histogram += F.one_hot(probs.argmax(1), len(self.histogram)).sum(0)
        self.distribution.copy_(
            torch.where(renew, self.histogram / self.histogram.sum(), self.distribution)
        )
        self.histogram *= ~renew
        return guess._replace(
            probs=probs, parts={**guess.parts, "semantic": semantic}, others=others
        )

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        """Return the semantic alignment loss (equation 4), over all unlabelled images, 0 before the warm-up."""
        if not self.align_weight:
            return {}
        target = guess.parts["semantic"]
        loss = -(target * self.semantic_logits(strong).log_softmax(1)).sum(1).mean()
        active = guess.step >= self.warmup_steps
        return {"align": self.align_weight * active * loss}
