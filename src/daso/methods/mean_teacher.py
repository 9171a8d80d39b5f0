"""Mean Teacher: the moving average of the network teaches the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import check_range
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.refine.guess import Guess, Refiner


class MeanTeacher(Method):
    """The moving average's probabilities on one weak view are the target on another weak view.

    Tarvainen, Valpola: *Mean teachers are better role models*, NeurIPS 2017, arXiv 1703.01780,
    section 2. The consistency loss is the mean squared error over all images and classes.

    Args:
        refine: improves the teacher's guess, e.g. DASO. Its own losses are not used, as in the code
            of DASO's authors, who only blend here.
        supervised: the loss on labeled images, of logits and labels.
        unlabeled_weight: weight of the consistency loss, >= 0.
        unlabeled_ramp: share of the training over which *unlabeled_weight* grows linearly from 0,
            0 to 1.

    Departures from the paper, as in the code of DASO's authors: the ramp is linear, and the teacher
    normalizes by the statistics of its batch. That batch is the unlabeled view, joined by the
    labeled images if the refiner observes them.
    """

    paper = "Tarvainen & Valpola, NeurIPS 2017, arXiv 1703.01780"
    unlabeled_views: tuple[View, ...] = ("weak", "weak")
    unlabeled_ratio = 1
    unlabeled_options = ("unlabeled_ramp",)
    uses_teacher = True
    refuses: ClassVar = {"terms": "it has no strong view, which terms need"}

    def __init__(
        self,
        total_steps: int,
        *,
        refine: Refiner | None = None,
        supervised: LabeledLoss | None = None,
        unlabeled_weight: float = 50.0,
        unlabeled_ramp: float = 0.4,
    ) -> None:
        super().__init__()
        self.unlabeled_weight = check_range("unlabeled_weight", unlabeled_weight, 0)
        self.unlabeled_ramp = check_range("unlabeled_ramp", unlabeled_ramp, 0, 1)
        self.refine = refine or Refiner()
        self.supervised = supervised or LabeledLoss()
        self.total_steps = total_steps

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the losses ``"labeled"`` and ``"unlabeled"``, and the pseudo-labels."""
        (images,), (student_images, teacher_images) = batch.labeled, batch.unlabeled
        sizes = [len(images), len(student_images)]
        labeled, student = torch.split(network(torch.cat([images, student_images])), sizes)

        with torch.no_grad():
            encode: Callable[[Tensor], Tensor] = teacher
            if self.refine.observes:
                both = teacher(torch.cat([images, teacher_images]))
                observed, features = torch.split(both, sizes)
                encode = lambda _: observed  # noqa: E731 - the teacher has encoded these images
            else:
                features = teacher(teacher_images)
            self.refine.observe(images, labeled.detach(), batch.labels, encode)
            linear = teacher.classify(features).softmax(1)
            guess = Guess(linear, features, batch.indices, batch.step, {"linear": linear})
            guess = self.refine(guess)

        weight = self.unlabeled_weight * ramp(batch.step, self.unlabeled_ramp, self.total_steps)
        losses = {
            "labeled": self.supervised(network.classify(labeled), batch.labels, batch.step),
            "unlabeled": weight * F.mse_loss(network.classify(student).softmax(1), guess.probs),
        }
        return Step(losses, PseudoLabels.of(guess))
