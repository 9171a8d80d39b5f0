"""Divide a run into a sequence of trainings; most runs have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from daso.balance import Sampling
from daso.data.training_data import TrainingData
from daso.nets.network import Network
from daso.parts import Facts, Part


@dataclass(frozen=True)
class Stage:
    """One training of a run.

    Attributes:
        steps: number of training steps.
        method: name of the method that it trains with; None: the run's.
        keeps_encoder: whether it starts from the averaged encoder of the previous stage, which
            stays frozen; only the heads are trained, from scratch.
        learning_rate, schedule: of that method; None: its own.
        sampling: of the labeled images; None: the run's.
    """

    steps: int
    method: str | None = None
    keeps_encoder: bool = False
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine", "multistep"] | None = None
    sampling: Sampling | None = None


class Plan(Part):
    """The trainings of a run, and what one passes to the next; this one is a single training.

    What is passed on are buffers, so that a checkpoint contains it.

    Attributes:
        brings: names of parts that the plan adds to a method that lacks them.
        provides: attribute of ``Facts`` that the plan computes; some other part must request it.
        adopts_unlabeled: whether unlabeled images become labeled ones.
    """

    kind: ClassVar[str] = "plan"
    adopts_unlabeled: ClassVar[bool] = False
    brings: tuple[str, ...] = ()
    provides: str | None = None

    def __init__(self, total_steps: int) -> None:
        super().__init__()
        self.total_steps = total_steps

    def stages(self) -> tuple[Stage, ...]:
        """Return the trainings, in order."""
        return (Stage(self.total_steps),)

    def own_stage(self) -> int:
        """Return the first stage that trains the run's method, counted from 0."""
        return next(number for number, stage in enumerate(self.stages()) if stage.method is None)

    def data(self, stage: int, data: TrainingData) -> TrainingData:
        """Return the training data of stage *stage*, counted from 0, given the data of the run."""
        return data

    def facts(self, stage: int, facts: Facts) -> Facts:
        """Return the facts for the parts of a stage's method, given those of the stage itself."""
        return facts

    def conclude(self, stage: int, network: Network, data: TrainingData) -> None:
        """Compute what the next stage needs from a finished one.

        Args:
            stage: the finished one, counted from 0; never the last one.
            network: its moving average.
            data: of the run, as the source supplied it.
        """
