"""cRT: retrain the classifier of a trained encoder on balanced classes."""

from __future__ import annotations

from daso.errors import OptionError, check_range
from daso.plans.plan import Plan, Stage


class CRT(Plan):
    """Train as usual, then train a new classifier on the features, with balanced labeled images.

    Kang et al.: *Decoupling Representation and Classifier for Long-Tailed Recognition*, ICLR 2020,
    arXiv 1910.09217: imbalanced labels hurt the classifier, hardly the features. The second
    training keeps the encoder of the moving average, draws every class with the same probability
    and starts from a random linear layer, whose moving average is evaluated.

    Args:
        total_steps: of both trainings.
        retraining_steps: steps of the second training, at least 1 and fewer than all. Default: a
            tenth of all.
        retraining_rate: base learning rate of the second training, > 0. Its schedule is
            ``multistep``: linear warm-up over 2.5% of its steps, x 0.01 at 80% and again at 90%, as
            in supervised training.

    Departures from the authors' code of DASO: there the second training is a separate run that
    starts from the last checkpoint of the first, with the encoder of the trained network rather
    than that of its average; batch normalization stays in training mode, so that its statistics
    drift towards the balanced batches; and the network itself is evaluated. Here the whole encoder
    is frozen.
    """

    paper = "Kang et al., ICLR 2020, arXiv 1910.09217"
    balances = True

    def __init__(
        self, total_steps: int, *, retraining_steps: int | None = None, retraining_rate: float = 0.1
    ) -> None:
        super().__init__(total_steps)
        if retraining_steps is None:
            retraining_steps = max(1, total_steps // 10)
        if not 1 <= retraining_steps < total_steps:
            raise OptionError(
                f"retraining_steps = {retraining_steps} is out of range (--retraining-steps): it "
                f"must be at least 1 and less than the {total_steps} training steps"
            )
        self.retraining_rate = check_range("retraining_rate", retraining_rate, above=0)
        self.retraining_steps = retraining_steps

    def stages(self) -> tuple[Stage, ...]:
        second = Stage(
            self.retraining_steps,
            method="supervised",
            keeps_encoder=True,
            learning_rate=self.retraining_rate,
            schedule="multistep",
            sampling="class-balanced",
        )
        return Stage(self.total_steps - self.retraining_steps), second
