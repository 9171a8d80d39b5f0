"""cRT: a new classifier, trained on balanced classes, for an encoder that has been trained."""

from __future__ import annotations

import math

from daso.errors import OptionError
from daso.plans.plan import Plan, Stage


class CRT(Plan):
    """Trains as usual, then learns a new classifier on the features, from labels alone, all classes equally often.

    Kang et al.: *Decoupling Representation and Classifier for Long-Tailed Recognition*, ICLR 2020, arXiv 1910.09217:
    imbalanced labels hurt the classifier, hardly the features. The second training keeps the encoder of the moving
    average, draws every class with the same probability and starts from a random linear layer, whose moving average
    is evaluated.

    Args:
        total_steps: of both trainings.
        retraining_steps: of the second one, at least 1 and less than all. Default: a tenth of all.
        retraining_rate: base learning rate of the second one, > 0. Its schedule is ``multistep``: linear warm-up over
            2.5% of its steps, x 0.01 at 80% and again at 90%, as in supervised training.

    Raises:
        OptionError: a value is out of range.

    Departures from the authors' code of DASO: there the second training is a run of its own on the last checkpoint of
    the first one, with the encoder of the network that was trained rather than that of its average; batch
    normalisation goes on in training mode, so that its statistics drift towards the balanced batches; and the network
    itself is evaluated. Here the encoder is frozen as a whole.
    """

    paper = "Kang et al., ICLR 2020, arXiv 1910.09217"

    def __init__(
        self, total_steps: int, *, retraining_steps: int | None = None, retraining_rate: float = 0.1
    ) -> None:
        super().__init__(total_steps)
        if retraining_steps is None:
            retraining_steps = max(1, total_steps // 10)
        if not 1 <= retraining_steps < total_steps:
            raise OptionError(
                f"CRT: retraining_steps = {retraining_steps} must be at least 1 and less than the "
                f"{total_steps} training steps"
            )
        if not 0 < retraining_rate < math.inf:
            raise OptionError(f"CRT: retraining_rate = {retraining_rate} must be greater than 0")
        self.retraining_steps = retraining_steps
        self.retraining_rate = retraining_rate

    def stages(self) -> tuple[Stage, ...]:
        """Return the training of everything and that of the classifier."""
        second = Stage(
            self.retraining_steps,
            method="supervised",
            keeps_encoder=True,
            learning_rate=self.retraining_rate,
            schedule="multistep",
            sampling="class-balanced",
        )
        return Stage(self.total_steps - self.retraining_steps), second
