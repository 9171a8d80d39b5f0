"""FixMatch: confident guesses on weak views teach strong views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_choice, check_range
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner
from daso.terms.term import Outputs, Term


class FixMatch(Method):
    """The class guessed on a weak view, if confident, is the target on a strong view of the image.

    Sohn et al.: *FixMatch*, NeurIPS 2020, arXiv 2001.07685, equations 3 and 4. The loss on
    unlabeled images is averaged over all of them, confident or not.

    Args:
        refine: improves the guess before it is thresholded, e.g. DASO.
        supervised: the loss on labeled images, of logits and labels.
        terms: further losses, e.g. ABC.
        threshold: tau, probability from which a guess is used, 0 to 1.
        unlabeled_weight: lambda_u, weight of the loss on unlabeled images, >= 0.
        weak_pass: ``"joint"``: one forward pass over labeled, weak and strong images, which share
            their batch-norm statistics, as in the authors' code; ``"apart"``: a pass of its own for
            the weak views, without a gradient, which is faster.

    Departures from the authors' code of DASO: none with ``weak_pass="joint"``.

    A variant overrides ``improve``, ``weigh``, ``labeled_loss`` or ``unlabeled_losses``; its
    constructor passes ``**shared`` arguments on.
    """

    paper = "Sohn et al., NeurIPS 2020, arXiv 2001.07685"
    unlabeled_views: tuple[View, ...] = ("weak", "strong")
    unlabeled_options: ClassVar[tuple[str, ...]] = ("threshold",)

    def __init__(
        self,
        *,
        refine: Refiner | None = None,
        supervised: LabeledLoss | None = None,
        terms: Sequence[Term] = (),
        threshold: float = 0.95,
        unlabeled_weight: float = 1.0,
        weak_pass: Literal["joint", "apart"] = "joint",
    ) -> None:
        super().__init__()
        self.threshold = check_range("threshold", threshold, 0, 1)
        self.unlabeled_weight = check_range("unlabeled_weight", unlabeled_weight, 0)
        self.weak_pass = check_choice("weak_pass", weak_pass, ("joint", "apart"))
        self.refine = refine or Refiner()
        self.supervised = supervised or LabeledLoss()
        self.terms = nn.ModuleList(terms)

    def improve(self, guess: Guess) -> Guess:
        """Return a better guess about the unlabeled images, which the losses learn from."""
        better: Guess = self.refine(guess)
        return better

    def weigh(self, guess: Guess) -> Tensor:
        """Return the weight of each guess, float (U,): 1 from the threshold on, else 0."""
        confidence = guess.probs.amax(1)
        return (confidence >= self.threshold).to(confidence.dtype)

    def labeled_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of logits (B, K) of labeled images, a scalar; computed first."""
        loss: Tensor = self.supervised(logits, batch.labels, batch.step)
        return loss

    def unlabeled_losses(self, logits: Tensor, guess: Guess, mask: Tensor) -> dict[str, Tensor]:
        """Return the losses of logits (U, K) of strong views, given guesses and their weights."""
        per_image = F.cross_entropy(logits, guess.probs.argmax(1), reduction="none")
        return {"unlabeled": self.unlabeled_weight * (mask * per_image).mean()}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return ``"labeled"``, ``"unlabeled"``, and the losses of refiner and terms."""
        (images,), (weak_images, strong_images) = batch.labeled, batch.unlabeled
        if self.weak_pass == "joint":
            features = network(torch.cat([images, weak_images, strong_images]))
            sizes = [len(images), len(weak_images), len(strong_images)]
            labeled, weak, strong = torch.split(features, sizes)
        else:
            with torch.no_grad():
                weak = network(weak_images)
            features = network(torch.cat([images, strong_images]))
            labeled, strong = torch.split(features, [len(images), len(strong_images)])

        self.refine.observe(images, labeled.detach(), batch.labels, teacher)
        with torch.no_grad():
            weak = weak.detach()
            linear = network.classify(weak).softmax(1)
            others: dict[str, Tensor] = {}
            for term in self.terms:
                others |= term.beliefs(network, weak)  # type: ignore[operator]
            guess = Guess(linear, weak, batch.indices, batch.step, {"linear": linear}, others)
            guess = self.improve(guess)
            mask = self.weigh(guess)

        losses = {
            "labeled": self.labeled_loss(network.classify(labeled), batch),
            **self.unlabeled_losses(network.classify(strong), guess, mask),
            **self.refine.losses(guess, strong),
        }
        outputs = Outputs(labeled, batch.labels, strong, guess, batch.draws)
        for term in self.terms:
            losses |= term(network, outputs)
        return Step(losses, PseudoLabels.of(guess, mask))
