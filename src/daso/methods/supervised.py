"""Supervised learning from the labelled images alone."""

from __future__ import annotations

from typing import ClassVar

from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, Step
from daso.nets.network import Network


class Supervised(Method):
    """Labels teach weakly augmented images; the unlabelled ones are not looked at.

    Args:
        supervised: the loss of logits and labels.

    Departures from the authors' code of DASO: evaluated is the moving average of the network, as with every method
    here; there it is the network itself.
    """

    learning_rate = 0.1
    schedule = "multistep"
    refuses: ClassVar = {
        "refine": "it makes no guesses about unlabelled images",
        "terms": "it does not look at unlabelled images",
    }

    def __init__(self, *, supervised: LabeledLoss | None = None) -> None:
        super().__init__()
        self.supervised = supervised or LabeledLoss()

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return the loss ``"labeled"``."""
        (labeled,) = batch.labeled
        logits = network.classify(network(labeled))
        return Step({"labeled": self.supervised(logits, batch.labels, batch.step)})
