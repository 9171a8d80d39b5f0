"""Losses and pseudo-labels since the last row, kept on the device and copied together.

The counts are a part of the training's state, so a run that stops between two rows loses none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from daso.evaluate.metrics import pseudo_label_metrics
from daso.methods.method import PseudoLabels

LOSSES, PSEUDO_LABELS = "losses.", "pseudo_labels."
STEPS = "steps"


class PseudoLabelRecord:
    """Counts pseudo-labels by true class, per part and for the confident ones, without a sync.

    Args:
        truth: int64, (N,), true classes of the unlabeled pool, -1 where unknown.
        sums: counts by name; existing counts are continued.
    """

    def __init__(self, num_classes: int, truth: Tensor, sums: dict[str, Tensor]) -> None:
        self.num_classes = num_classes
        self.truth = torch.where(truth < 0, num_classes, truth)
        self._sums = sums
        self._names: tuple[str, ...] = ()
        for name in sums:
            if name.startswith(PSEUDO_LABELS):
                sums[name] = sums[name].to(truth.device)

    def add(self, pseudo_labels: PseudoLabels, indices: Tensor) -> None:
        """Count the pseudo-labels of a step for the unlabeled images *indices* (U,)."""
        rows = self.truth[indices] * self.num_classes
        ones = torch.ones_like(pseudo_labels.mask)
        for name, labels in pseudo_labels.labels.items():
            self._count(name, rows + labels, ones)
        self._count("confident", rows + pseudo_labels.labels["final"], pseudo_labels.mask)
        self._names = (*pseudo_labels.labels, "confident")

    def _count(self, name: str, cells: Tensor, weight: Tensor) -> None:
        name = PSEUDO_LABELS + name
        if name not in self._sums:
            size = (self.num_classes + 1) * self.num_classes
            self._sums[name] = torch.zeros(size, device=cells.device)
        # float32 counts exactly up to 16.7 million, far more than come between two rows.
        self._sums[name].scatter_add_(0, cells, weight)

    def take(self) -> dict[str, Any]:
        """Return the numbers since the last call and reset them; {} if nothing was counted.

        ``share_confident``, and ``pseudo_label_metrics`` for ``linear``, ``semantic`` (if present),
        ``final`` and ``confident`` (the final ones above the threshold).
        """
        taken = _take(self._sums, PSEUDO_LABELS)
        if not taken:
            return {}
        counts = {name: taken[name].cpu().numpy() for name in self._names or taken}
        shape = (self.num_classes + 1, self.num_classes)
        numbers = {
            name: pseudo_label_metrics(count.reshape(shape)) for name, count in counts.items()
        }
        share = counts["confident"].sum() / counts["final"].sum()
        return {"share_confident": float(share), **numbers}


@dataclass(frozen=True)
class Fault:
    """The first number that was not finite.

    Attributes:
        step: step of the fault, counted from 1.
        term: name of the loss, or ``"weights"`` if the losses were finite and the update was not.
    """

    step: int
    term: str
    value: float


class LossRecord:
    """Keeps the losses of each step on the device and copies them to the host together."""

    def __init__(self, sums: dict[str, Tensor]) -> None:
        self._sums = sums
        self._waiting: list[tuple[int, tuple[str, ...], Tensor, Tensor]] = []
        self._names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, step: int, losses: dict[str, Tensor], weights: Tensor) -> None:
        """Add the scalar losses of a step, counted from 1.

        *weights*, (), is not finite if the update broke the weights.
        """
        self._names = tuple(losses)
        self._waiting.append(
            (step, self._names, torch.stack(list(losses.values())).detach(), weights)
        )

    def check(self) -> Fault | None:
        """Copy new losses to the host, which waits for the device; return the first fault."""
        if not self._waiting:
            return None
        waiting, self._waiting = self._waiting, []
        parts = [part for *_, losses, weights in waiting for part in (losses, weights[None])]
        numbers = torch.cat(parts).tolist()
        sums: dict[str, float] = {}
        for step, names, *_ in waiting:
            values, numbers = numbers[: len(names) + 1], numbers[len(names) + 1 :]
            for name, value in zip((*names, "weights"), values, strict=True):
                if not math.isfinite(value):
                    return Fault(step, name, value)
            for name, value in zip(names, values, strict=False):
                before = sums[name] if name in sums else self._sum(LOSSES + name)
                sums[name] = before + value
        for name, value in sums.items():
            self._sums[LOSSES + name] = torch.tensor(value, dtype=torch.float64)
        self._sums[STEPS] = torch.tensor(self._sum(STEPS) + len(waiting), dtype=torch.float64)
        return None

    def _sum(self, name: str) -> float:
        return float(self._sums.get(name, 0.0))

    def take(self) -> dict[str, float]:
        """Return the mean of each checked loss since the last call and reset the sums."""
        steps = float(self._sums.pop(STEPS))
        taken = _take(self._sums, LOSSES)
        names = [*self._names, *(name for name in taken if name not in self._names)]
        return {name: float(taken[name]) / steps for name in names if name in taken}


def _take(sums: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    names = [name for name in sums if name.startswith(prefix)]
    return {name.removeprefix(prefix): sums.pop(name) for name in names}
