"""USADTM: nearest prototypes teach strong views, and three views of an image agree on its class."""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import check_range
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.nets.network import Network
from daso.refine.queue import PrototypeQueue


class USADTM(Method):
    """The prototype nearest to a weak view, if clear, is the target on a strong view of the image.

    Han, Gao, Yuan, Wang: *Unsupervised Semantic Aggregation and Deformable Template Matching for
    Semi-Supervised Learning*, NeurIPS 2020, arXiv 2010.05517, as DASO's authors compare with it:

    * prototypes: means of the last 5 n_k features of class k by the network itself, where n_k is
      the number of labeled images of the class;
    * the pseudo-label is the prototype with the largest cosine. It is used if the prototype nearest
      by Euclidean distance is the same and the cosine reaches the threshold. The loss is averaged
      over all images, used or not;
    * the mutual information of the classes of the plain, the weak and the strong view is maximized,
      pair by pair.

    Args:
        class_counts: int64, (K,), n_k.
        total_steps: of the training; only the default of *warmup_steps* depends on it.
        supervised: the loss on labeled images, of logits and labels.
        cosine_threshold: cosine from which a pseudo-label is used, -1 to 1.
        unlabeled_weight: weight of the loss on strong views, >= 0.
        information_weight: weight of the mutual information, >= 0.
        warmup_steps: pseudo-labels are used from this step on. Default: 500, as in the code of
            DASO's authors for 250,000 steps, but at most a twentieth of the training.

    That code has no configuration of this method; two unlabeled images per labeled image is the
    paper's mu. The mutual information is used from the first step on: the code never reads the
    later start that its configuration names.
    """

    paper = "Han et al., NeurIPS 2020, arXiv 2010.05517"
    unlabeled_views: tuple[View, ...] = ("identity", "weak", "strong")
    unlabeled_options = ("cosine_threshold", "warmup_steps")
    refuses: ClassVar = {
        "refine": "its pseudo-labels are nearest prototypes, not probabilities to refine",
        "terms": "it guesses no probabilities, which terms need",
    }

    def __init__(
        self,
        class_counts: Tensor,
        dim: int,
        total_steps: int,
        *,
        supervised: LabeledLoss | None = None,
        cosine_threshold: float = 0.85,
        unlabeled_weight: float = 1.0,
        information_weight: float = 0.1,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__()
        if warmup_steps is None:
            warmup_steps = min(500, total_steps // 20)
        self.cosine_threshold = check_range("cosine_threshold", cosine_threshold, -1, 1)
        self.unlabeled_weight = check_range("unlabeled_weight", unlabeled_weight, 0)
        self.information_weight = check_range("information_weight", information_weight, 0)
        self.warmup_steps = check_range("warmup_steps", warmup_steps, 0)
        self.supervised = supervised or LabeledLoss()
        self.queue = PrototypeQueue(5 * class_counts.cpu(), dim)

    def describe(self) -> dict[str, list[float]]:
        return {"queued": self.queue.seen.tolist()}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return ``"labeled"``, ``"unlabeled"``, ``"information"``; the confidence is a cosine."""
        (images,), views = batch.labeled, batch.unlabeled
        features = network(torch.cat([images, *views]))
        sizes = [len(images), *map(len, views)]
        labeled, _, weak, _ = torch.split(features, sizes)
        labeled_logits, *view_logits = torch.split(network.classify(features), sizes)

        with torch.no_grad():
            self.queue.push(labeled, batch.labels)
            cosine, pseudo_label = self.queue.similarity(weak).max(1)
            nearest = torch.cdist(weak, self.queue.prototypes).argmin(1)
            clear = (cosine >= self.cosine_threshold) & (nearest == pseudo_label)
            mask = (clear & (batch.step >= self.warmup_steps)).float()
        per_image = F.cross_entropy(view_logits[2], pseudo_label, reduction="none")

        pairs = combinations((logits.softmax(1) for logits in view_logits), 2)
        information = torch.stack([mutual_information(*pair) for pair in pairs]).mean()
        losses = {
            "labeled": self.supervised(labeled_logits, batch.labels, batch.step),
            "unlabeled": self.unlabeled_weight * (mask * per_image).mean(),
            "information": -self.information_weight * information,
        }
        labels = {"linear": view_logits[1].argmax(1), "final": pseudo_label}
        return Step(losses, PseudoLabels(labels, cosine, mask))


def mutual_information(first: Tensor, second: Tensor) -> Tensor:
    """Return the mutual information, a scalar, of the classes of two views of the same images.

    Ji, Henriques, Vedaldi: *Invariant Information Clustering*, ICCV 2019, arXiv 1807.06653,
    equation 3. The symmetric joint distribution is the mean over images of the product of both
    probabilities, float (U, K).
    """
    joint = first.T @ second
    joint = (joint + joint.T) / 2
    joint = joint / joint.sum()
    tiny = torch.finfo(torch.float64).eps
    row = joint.sum(1, keepdim=True).clamp(min=tiny)
    column = joint.sum(0, keepdim=True).clamp(min=tiny)
    joint = joint.clamp(min=tiny)
    return (joint * (joint.log() - row.log() - column.log())).sum()
