"""Mixture teacher: a readout of several kinds of features teaches the network that it reads."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from daso.errors import check_range
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.nets.network import Network
from daso.nets.readout import NAME


class MixtureTeacher(Method):
    """The beliefs of the mixture readout on an image are the soft target on its strong view.

    Our own method, after co-training (Blum & Mitchell, COLT 1998) and DASO. The readout joins
    features of the moving average with those of image patches, which err differently, and fits a
    mixture with an estimated class distribution q to labeled and unlabeled images. Its logits z,
    for balanced classes, take the place of DASO's blend of a linear and a similarity classifier:
    the target on the strong view is t = softmax(z / T + log q), for logits f that are adjusted
    likewise, H(t, softmax(f + log q)). The readout is fitted again at every evaluation.

    Args:
        supervised: the loss on labeled images, of logits and labels.
        unlabeled_weight: weight of the loss on unlabeled images, >= 0.
        belief_threshold: confidence from which a target is used, 0 to 1.
        belief_temperature: T, below 1 for sharper targets, > 0.
        adjust_beliefs: use the estimated class distribution; if not, q is uniform.
    """

    paper = "own method"
    unlabeled_views: tuple[View, ...] = ("identity", "strong")
    learning_rate = 0.1
    schedule = "one-cycle"
    unlabeled_ratio = 1
    unlabeled_options = ("belief_threshold", "belief_temperature", "adjust_beliefs")
    uses_teacher = True
    needs_readout = True
    refuses: ClassVar = {
        "refine": "the beliefs of the readout are its guesses",
        "terms": "it has no guess by the network on a weak view, which terms need",
    }

    def __init__(
        self,
        *,
        supervised: LabeledLoss | None = None,
        unlabeled_weight: float = 1.0,
        belief_threshold: float = 0.0,
        belief_temperature: float = 1.0,
        adjust_beliefs: bool = True,
    ) -> None:
        super().__init__()
        check_range("unlabeled_weight", unlabeled_weight, 0)
        check_range("belief_threshold", belief_threshold, 0, 1)
        check_range("belief_temperature", belief_temperature, above=0)
        self.supervised = supervised or LabeledLoss()
        self.unlabeled_weight = unlabeled_weight
        self.belief_threshold = belief_threshold
        self.belief_temperature = belief_temperature
        self.adjust_beliefs = adjust_beliefs

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        return False

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses ``"labeled"`` and ``"unlabeled"``, and the pseudo-labels."""
        (images,), (plain, strong_images) = batch.labeled, batch.unlabeled
        with torch.no_grad():
            assert teacher.readout is not None
            logits = teacher.classify(teacher.represent(plain), NAME)
            shift = self.adjust_beliefs * teacher.readout.prior.log()
            target = (logits / self.belief_temperature + shift).softmax(1)
            confidence, final = target.max(1)
            mask = (confidence >= self.belief_threshold).to(confidence.dtype)
        features = network(torch.cat([images, strong_images]))
        labeled, strong = torch.split(features, [len(images), len(strong_images)])
        per_image = F.cross_entropy(network.classify(strong) + shift, target, reduction="none")
        losses = {
            "labeled": self.supervised(network.classify(labeled), batch.labels, batch.step),
            "unlabeled": self.unlabeled_weight * (mask * per_image).mean(),
        }
        return Step(losses, PseudoLabels({"final": final}, confidence, mask))
