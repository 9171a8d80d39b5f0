"""What the pieces of a method have in common, and the facts of a run that they may ask for.

Shape letters, here and in every piece: B labelled images of a batch, U unlabelled ones, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NewTable = Callable[..., Tensor]
"""Makes a tensor of a shape and, if not float32, a ``dtype``, not filled; ``torch.empty`` is one."""


@dataclass(frozen=True)
class Facts:
    """What a part may ask to know of the run; its constructor names the attribute that it needs.

    Attributes:
        num_classes: K.
        dim: D, the length of a feature.
        class_counts: int64, (K,), labelled images of each class, adopted ones of an earlier stage included.
        given_counts: int64, (K,), labelled images of each class as they were given.
        total_steps: of the training; of one stage where a run has several.
        num_unlabeled: unlabelled images.
        unlabeled_prior: float, (K,), estimated share of each class among the unlabelled images; None: not known.
        align_temperature: exponent of the target of distribution alignment, which CReST+ lowers stage by stage.
        new_table: makes the buffers that have a row for each unlabelled image, in a file if the images are in one.
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
    """A piece of a method, which may be made of further pieces and speaks for them.

    The positional arguments of a constructor are facts of the run, attributes of ``Facts``, supplied by name; its
    keyword-only arguments are hyper-parameters, which become options of the command line, and are kept under
    their names. State is buffers of fixed shape: so a checkpoint, a device and a compiled graph take it as it is.

    Attributes:
        paper: where the part was published.
    """

    paper: str = ""

    def parts(self) -> Iterator[Part]:
        """Yield the pieces that this one is made of."""
        for child in self.children():
            if isinstance(child, Part):
                yield child
            elif isinstance(child, nn.ModuleList):
                yield from (item for item in child if isinstance(item, Part))

    @property
    def heads(self) -> dict[str, int]:
        """Linear heads that the network shall have beside ``"class"``: outputs by name."""
        return {name: size for part in self.parts() for name, size in part.heads.items()}

    @property
    def output(self) -> str:
        """Name of the head that classifies when the network is used."""
        return next((part.output for part in self.parts() if part.output != "class"), "class")

    @property
    def teacher_uses_batch_statistics(self) -> bool:
        """Whether the teacher normalises by the statistics of its batch, as in training, or by running ones."""
        return all(part.teacher_uses_batch_statistics for part in self.parts())

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what a step needs of chance, by name, drawn on the host so that all devices see the same.

        Args:
            labeled: B.
            unlabeled: U.
            generator: on the host; its state is a function of the seed and the step.
        """
        return {
            name: value
            for part in self.parts()
            for name, value in part.draw(labeled, unlabeled, generator).items()
        }

    def begin_step(self, step: int) -> None:
        """Get ready, on the host, for step *step*, counted from 0."""
        for part in self.parts():
            part.begin_step(step)

    def describe(self) -> dict[str, list[float]]:
        """Return the numbers of the state that a reader of the run wants to see, by name."""
        return {name: value for part in self.parts() for name, value in part.describe().items()}
