"""Supervised learning from the labelled images alone."""

from __future__ import annotations

from daso.methods.method import Batch, Method, Step, SupervisedLoss, cross_entropy
from daso.nets.network import Network


class Supervised(Method):
    """Labels teach weakly augmented images; the unlabelled ones are not looked at.

    Args:
        supervised: the loss of logits and labels.
    """

    learning_rate = 0.1
    schedule = "multistep"

    def __init__(self, *, supervised: SupervisedLoss = cross_entropy) -> None:
        super().__init__()
        self.supervised = supervised

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the loss ``"labeled"``."""
        (labeled,) = batch.labeled
        logits = network.classify(network(labeled))
        return Step({"labeled": self.supervised(logits, batch.labels)})
