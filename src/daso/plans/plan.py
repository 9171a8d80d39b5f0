"""A run as a sequence of trainings; most runs are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daso.balance import Sampling
from daso.data.training_data import TrainingData
from daso.nets.network import Network
from daso.parts import Facts, Part


@dataclass(frozen=True)
class Stage:
    """One training of a run.

    Attributes:
        steps: its length.
        method: name of the method that it trains with; None: the run's.
        keeps_encoder: it starts from the averaged encoder of the stage before, which stays as it is; only its heads
            learn, from scratch.
        learning_rate, schedule: of that method; None: its own.
        sampling: of the labelled images; None: the run's.
    """

    steps: int
    method: str | None = None
    keeps_encoder: bool = False
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine", "multistep"] | None = None
    sampling: Sampling | None = None


class Plan(Part):
    """Says what the trainings of a run are and what one hands to the next; this one is a single training.

    What is handed on are buffers, so a checkpoint holds it.

    Attributes:
        brings: names of parts that the plan adds to a method that does not have them.
        provides: attribute of ``Facts`` that the plan works out for other parts; without one that asks for it the
            plan would be of no use.
    """

    brings: tuple[str, ...] = ()
    provides: str | None = None

    def __init__(self, total_steps: int) -> None:
        super().__init__()
        self.total_steps = total_steps

    def stages(self) -> tuple[Stage, ...]:
        """Return the trainings, in order."""
        return (Stage(self.total_steps),)

    def data(self, stage: int, data: TrainingData) -> TrainingData:
        """Return what stage *stage*, counted from 0, trains on, given the data of the run."""
        return data

    def facts(self, stage: int, facts: Facts) -> Facts:
        """Return what the parts of a stage's method are told, given the plain facts of the stage."""
        return facts

    def conclude(self, stage: int, network: Network, data: TrainingData) -> None:
        """Take from a finished stage what the next one needs.

        Args:
            stage: the finished one, counted from 0; never the last one.
            network: its moving average.
            data: of the run, as the source gave it.
        """
