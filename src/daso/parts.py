"""The base class of all parts of a method, and the facts of a run that parts may ask for.

Shape letters, here and in every part: B labeled images of a batch, U unlabeled images of a batch,
K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

NewTable = Callable[..., Tensor]
"""Makes an uninitialized tensor of a shape and, if not float32, a ``dtype``, as ``torch.empty``."""
IdleOptions = Iterator[tuple[Sequence[str], str]]
"""Groups of hyper-parameters that have no effect, each with the reason."""


@dataclass(frozen=True)
class Facts:
    """Facts of a run, which a part requests by naming them in its constructor.

    Attributes:
        num_classes: K.
        dim: D, the length of a feature.
        class_counts: int64, (K,), labeled images of each class, including images that an earlier
            stage adopted.
        given_counts: int64, (K,), labeled images of each class in the data.
        total_steps: training steps; those of one stage where a run has several.
        num_unlabeled: number of unlabeled images.
        unlabeled_prior: float, (K,), estimated share of each class among the unlabeled images, or
            None if it is unknown.
        align_temperature: exponent of the target of distribution alignment, which CReST+ lowers
            from stage to stage.
        new_table: makes buffers with a row for each unlabeled image, in a file if the images are.
    """

    num_classes: int
    dim: int
    class_counts: Tensor
    given_counts: Tensor
    total_steps: int
    num_unlabeled: int
    unlabeled_prior: Tensor | None = None
    align_temperature: float = 1.0
    new_table: NewTable = torch.empty


class Part(nn.Module):
    """A part of a method, which may contain further parts and answers for them.

    The positional arguments of a constructor are attributes of ``Facts``, supplied by name. Its
    keyword-only arguments are hyper-parameters: they become command-line options, and are kept
    under their own names. A value out of range is an ``OptionError``. State is buffers of fixed
    shape, so that it is checkpointed, moved and compiled without further code.

    Attributes:
        kind: ``"method"``, ``"labeled loss"``, ``"refiner"``, ``"term"``, ``"plan"`` or
            ``"readout"``.
        paper: where the part was published.
        balances: whether the part removes the bias towards frequent classes, so that the
            probabilities are those for balanced classes and must not be adjusted again.
    """

    kind: ClassVar[str] = "part"
    paper: str = ""
    balances: ClassVar[bool] = False

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        """Yield the hyper-parameters of this part that have no effect, given all *options*.

        *parts* are the classes of all parts of the composed method, the learner first.
        """
        yield from ()

    @classmethod
    def remarks(cls, options: Mapping[str, Any], steps: int) -> Iterator[str]:
        """Yield what a user should know about resolved *options* in a stage of *steps* steps."""
        yield from ()

    def parts(self) -> Iterator[Part]:
        """Yield the parts that this one contains."""
        for child in self.children():
            if isinstance(child, Part):
                yield child
            elif isinstance(child, nn.ModuleList):
                yield from (item for item in child if isinstance(item, Part))

    @property
    def heads(self) -> dict[str, int]:
        """Linear heads that the network needs beside ``"class"``: number of outputs by name."""
        return {name: size for part in self.parts() for name, size in part.heads.items()}

    @property
    def output(self) -> str:
        """Name of the head that classifies when the network is used."""
        return next((part.output for part in self.parts() if part.output != "class"), "class")

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        """Whether the teacher normalizes by the statistics of its batch, not by running ones."""
        return all(part.teacher_uses_batch_statistics for part in self.parts())

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random numbers of a step, by name, drawn on the host for all devices.

        The state of *generator* is a function of the seed and the step.
        """
        return {
            name: value
            for part in self.parts()
            for name, value in part.draw(labeled, unlabeled, generator).items()
        }

    def begin_step(self, step: int) -> None:
        """Prepare, on the host, for step *step*, counted from 0."""
        for part in self.parts():
            part.begin_step(step)

    def describe(self) -> dict[str, list[float]]:
        """Return the numbers of the state that belong into the record of a run, by name."""
        return {name: value for part in self.parts() for name, value in part.describe().items()}
