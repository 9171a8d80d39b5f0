"""CDMAD: guesses and predictions less what the network says of an image of one color."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch
from daso.nets.network import Network
from daso.refine.guess import Guess

HEAD = "debiased"


class CDMAD(FixMatch):
    """FixMatch less the logits of an image that shows nothing, in training and in use.

    Lee, Kim: *CDMAD: Class-Distribution-Mismatch-Aware Debiasing for Class-Imbalanced
    Semi-Supervised Learning*, CVPR 2024, arXiv 2403.10391. An image of one color belongs to no
    class, so its logits g are the network's bias. From a share of the training on, the target on
    the strong view is softmax(z - g), as a whole distribution and without a threshold; the trained
    network classifies by z - g.

    Args:
        debias_start: share of the training after which guesses are corrected, 0 to 1; the authors
            start after 100 of 500 epochs.
        blank_value: of the pixels of the image of one color, 0 to 255.
        threshold: tau, probability from which a guess is used, 0 to 1.
        shared: of :class:`~daso.methods.fixmatch.FixMatch`.

    The image of one color passes alone, normalized by the running statistics of the batch norms:
    that of the network after each step, for the next guesses, and that of the moving average.
    """

    paper = "Lee & Kim, CVPR 2024, arXiv 2403.10391"
    balances = True
    needs_images = True
    unlabeled_options = ("threshold", "debias_start")
    computed_heads = (HEAD,)
    refuses: ClassVar = {"terms": "the trained network classifies by a head of its own"}
    output = HEAD

    def __init__(
        self,
        num_classes: int,
        total_steps: int,
        *,
        debias_start: float = 0.2,
        blank_value: int = 255,
        threshold: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(threshold=threshold, **shared)
        self.debias_start = check_range("debias_start", debias_start, 0, 1)
        self.blank_value = check_range("blank_value", blank_value, 0, 255)
        self.start = int(debias_start * total_steps)
        self.bias = nn.Buffer(torch.zeros(num_classes))

    @property
    def heads(self) -> dict[str, int]:
        return {HEAD: len(self.bias), **super().heads}

    def describe(self) -> dict[str, list[float]]:
        return {"blank_guess": self.bias.softmax(0).tolist(), **super().describe()}

    def improve(self, guess: Guess) -> Guess:
        bias = self.bias * (guess.step >= self.start)
        debiased = (guess.probs.log() - bias).softmax(1)
        return super().improve(guess._replace(probs=debiased))

    def unlabeled_losses(self, logits: Tensor, guess: Guess, mask: Tensor) -> dict[str, Tensor]:
        per_image = F.cross_entropy(logits, guess.probs, reduction="none")
        return {"unlabeled": self.unlabeled_weight * (mask * per_image).mean()}

    @torch.no_grad()
    def end_step(self, network: Network, teacher: Network, batch: Batch) -> None:
        """Keep the network's bias for the next guesses, and give the teacher the head z - g."""
        blank = torch.full_like(batch.labeled[0][:1], self.blank_value)
        self.bias.copy_(network.classify(_evaluate(network, blank))[0])
        weight = cast(nn.Linear, teacher.heads["class"]).weight
        debiased = cast(nn.Linear, teacher.heads[HEAD])
        debiased.weight.copy_(weight)
        debiased.bias.copy_(-(_evaluate(teacher, blank) @ weight.T)[0])


def _evaluate(network: Network, images: Tensor) -> Tensor:
    """Return features by running statistics; the network's mode stays as it is."""
    training = network.training
    features: Tensor = network.eval()(images)
    network.train(training)
    return features
