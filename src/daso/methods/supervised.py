"""Supervised learning from the labeled images alone."""

from __future__ import annotations

from typing import ClassVar

from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, Step
from daso.nets.network import Network


class Supervised(Method):
    """Learn from weakly augmented labeled images; unlabeled images are not used.

    Args:
        supervised: the loss on labeled images, of logits and labels.

    Departures from the authors' code of DASO: the moving average of the network is evaluated, as
    with every method here; theirs evaluates the network itself.
    """

    learning_rate = 0.1
    schedule = "multistep"
    refuses: ClassVar = {
        "refine": "it makes no guesses about unlabeled images",
        "terms": "it does not use unlabeled images",
    }

    def __init__(self, *, supervised: LabeledLoss | None = None) -> None:
        super().__init__()
        self.supervised = supervised or LabeledLoss()

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        (labeled,) = batch.labeled
        logits = network.classify(network(labeled))
        return Step({"labeled": self.supervised(logits, batch.labels, batch.step)})
