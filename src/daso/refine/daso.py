"""DASO: distribution-aware semantics-oriented pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_choice, check_range
from daso.parts import IdleOptions
from daso.refine.guess import Guess, Refiner
from daso.refine.queue import PrototypeQueue

Blend = Literal["distribution", "linear", "semantic", "fixed"]


class DASO(Refiner):
    """Blend a classifier's guesses with those of prototypes, more for frequently guessed classes.

    A linear classifier trained on imbalanced labels favors frequent classes, a nearest-prototype
    classifier rare ones. Each guess leans on the prototypes in proportion to how often its class
    was guessed recently, so no prior of the unlabeled data is needed.

    Oh, Kim, Kweon: *Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced
    Semi-Supervised Learning*, CVPR 2022, arXiv 2106.05682, section 3 and algorithms 1 and 2:

    * prototypes c_k: means of balanced queues of labeled features of the moving-average network
      (3.2);
    * semantic label q = softmax(cos(z, c_k) / T_proto);
    * m: share of each class among the final pseudo-labels of the last period;
      v_k = m_k^(1/T_dist) / max_j m_j^(1/T_dist); k' = argmax p; p' = (1 - v_k') p + v_k' q (3.3);
    * semantic alignment loss: cross-entropy of q on the strong view towards q on the weak view
      (3.4).

    Args:
        class_counts: int64, (K,), labeled images of each class.
        total_steps: of the training; only the default of *warmup_steps* depends on it.
        queue_length: L, features kept per class, >= 1.
        prototype_temperature: T_proto, > 0.
        dist_temperature: T_dist, > 0. Smaller: fewer classes lean on the prototypes. The paper
            takes 1.5 where labeled and unlabeled images have the same class distribution, and 0.3
            where they do not.
        align_weight: lambda_align, weight of the semantic alignment loss, >= 0; 0 turns it off.
        warmup_steps: P; blending and alignment act from this step on, the queue and the histogram
            fill before. Default: 5,000, as in the paper, but at most a fifth of the training.
        histogram_period: steps after which m is updated, from the pseudo-labels since the last
            update, >= 1.
        blend: how much a guess leans on the prototypes, v: ``"distribution"``: by how often its
            class was guessed recently; ``"linear"``: 0, not at all; ``"semantic"``: 1, the
            prototypes alone; ``"fixed"``: *fixed_blend*.
        fixed_blend: v for the blend ``"fixed"``, 0 to 1.
        balanced_queue: whether all classes have the same queue length; otherwise a queue holds 5
            features per labeled image of its class.
        queue_encoder: network whose features are queued: ``"ema"``, the moving average, or
            ``"online"``, the network in training.
        queue_batch_statistics: whether the moving average normalizes the queued features by the
            statistics of the labeled batch, which also enter its running statistics, as in the
            authors' code; otherwise it uses its running statistics.

    Departures from the authors' code: before the first update of the histogram v is 0 (theirs would
    divide zero by zero if the warm-up were shorter than the period).
    """

    paper = "Oh, Kim & Kweon, CVPR 2022, arXiv 2106.05682"
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
        self.queue_length = check_range("queue_length", queue_length, 1)
        self.prototype_temperature = check_range(
            "prototype_temperature", prototype_temperature, above=0
        )
        self.dist_temperature = check_range("dist_temperature", dist_temperature, above=0)
        self.align_weight = check_range("align_weight", align_weight, 0)
        self.warmup_steps = check_range("warmup_steps", warmup_steps, 0)
        self.histogram_period = check_range("histogram_period", histogram_period, 1)
        self.blend = check_choice("blend", blend, get_args(Blend))
        self.fixed_blend = check_range("fixed_blend", fixed_blend, 0, 1)
        self.queue_encoder = check_choice("queue_encoder", queue_encoder, ("ema", "online"))
        equal = torch.full((num_classes,), queue_length)
        self.queue = PrototypeQueue(equal if balanced_queue else 5 * class_counts.cpu(), dim)
        self.histogram = nn.Buffer(torch.zeros(num_classes))
        self.distribution = nn.Buffer(torch.zeros(num_classes))
        self.balanced_queue = balanced_queue
        self.observes_network = queue_encoder == "online"
        self.queue_batch_statistics = queue_batch_statistics

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        learner, blend = parts[0], options["blend"]
        has_strong_view = "strong" in learner.unlabeled_views
        if not has_strong_view:
            reason = f"its loss compares a weak with a strong view, and {learner.__name__} has none"
            yield ("align_weight",), reason
        if blend != "fixed":
            yield ("fixed_blend",), "it requires --blend fixed"
        if blend != "distribution":
            yield ("dist_temperature", "histogram_period"), "it requires --blend distribution"
        if blend == "linear" and (not has_strong_view or options["align_weight"] == 0):
            queue = ("queue_length", "balanced_queue", "queue_encoder", "queue_batch_statistics")
            reason = "--blend linear without the alignment loss uses no prototypes"
            yield (*queue, "prototype_temperature", "warmup_steps"), reason
        if options["queue_encoder"] == "online" and not learner.uses_teacher:
            reason = "--queue-encoder online does not use the moving average"
            yield ("queue_batch_statistics",), reason
        if not options["balanced_queue"]:
            yield ("queue_length",), "it requires --balanced-queue"

    @classmethod
    def remarks(cls, options: Mapping[str, Any], steps: int) -> Iterator[str]:
        if options["blend"] == "linear":
            return
        starts = {"warmup_steps": options["warmup_steps"]}
        if options["blend"] == "distribution":
            starts["histogram_period"] = options["histogram_period"]
        name, start = max(starts.items(), key=lambda item: item[1])
        if 2 * start > steps:
            flag, length = f"--{name.replace('_', '-')}", f"in a training of {steps:,} steps"
            how = f"DASO blends pseudo-labels only from step {start:,} on {length}"
            yield (
                f"{f'DASO never blends pseudo-labels {length}' if start >= steps else how} "
                f"({flag} {start:,}); train longer, or lower {flag}, for example to "
                f"{max(1, steps // 10):,}"
            )

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        return self.queue_batch_statistics

    @torch.no_grad()
    def observe(
        self,
        images: Tensor,
        features: Tensor | None,
        labels: Tensor,
        teacher: Callable[[Tensor], Tensor],
    ) -> None:
        """Queue the features of the labeled images."""
        if self.queue_encoder == "ema":
            features = teacher(images)
        assert features is not None
        self.queue.push(features, labels)

    def semantic_logits(self, features: Tensor) -> Tensor:
        """Return cos(z, c_k) / T_proto, (N, K), of features (N, D)."""
        return self.queue.similarity(features) / self.prototype_temperature

    def weights(self) -> Tensor:
        """Return v, float (K,): how much guesses of each class lean on prototypes (equation 3)."""
        if self.blend == "distribution":
            # Divided first: the power of a small share could vanish.
            relative = self.distribution / self.distribution.max().clamp(min=1e-12)
            return relative ** (1 / self.dist_temperature)
        constant = {"linear": 0.0, "semantic": 1.0, "fixed": self.fixed_blend}[self.blend]
        return torch.full_like(self.distribution, constant)

    def describe(self) -> dict[str, list[float]]:
        """Return, for each class, the blending weight v and the number of queued images."""
        return {"blend_weight": self.weights().tolist(), "queued": self.queue.seen.tolist()}

    @torch.no_grad()
    def forward(self, guess: Guess) -> Guess:
        """Blend the guess with the semantic label and count the result."""
        semantic = self.semantic_logits(guess.features).softmax(1)
        weights = self.weights() * (guess.step >= self.warmup_steps)

        def blend(probs: Tensor) -> Tensor:
            v = weights[probs.argmax(1)][:, None]
            return (1 - v) * probs + v * semantic

        probs = blend(guess.probs)
        others = {name: blend(other) for name, other in guess.others.items()}

        renew = (guess.step + 1) % self.histogram_period == 0
        self.histogram.add_(F.one_hot(probs.argmax(1), len(self.histogram)).sum(0))
        shares = self.histogram / self.histogram.sum()
        self.distribution.copy_(torch.where(renew, shares, self.distribution))
        self.histogram.mul_(~renew)
        parts = {**guess.parts, "semantic": semantic}
        return guess._replace(probs=probs, parts=parts, others=others)

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        """Return the semantic alignment loss (equation 4); 0 before the warm-up ends."""
        if not self.align_weight:
            return {}
        target = guess.parts["semantic"]
        loss = -(target * self.semantic_logits(strong).log_softmax(1)).sum(1).mean()
        active = guess.step >= self.warmup_steps
        return {"align": self.align_weight * active * loss}
