"""Counts, kept on the device, of what a method's losses and pseudo-labels were since the last look."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from daso.evaluate.metrics import pseudo_label_metrics
from daso.methods.method import PseudoLabels


class PseudoLabelRecord:
    """Counts pseudo-labels by true class, for each of the parts and for the confident ones, without a sync.

    Args:
        num_classes: K.
        truth: int64, (N,), true classes of the unlabelled pool, -1 where unknown.
    """

    def __init__(self, num_classes: int, truth: Tensor) -> None:
        self.num_classes = num_classes
        self.truth = torch.where(truth < 0, num_classes, truth)
        self._counts: dict[str, Tensor] = {}

    def add(self, pseudo_labels: PseudoLabels, indices: Tensor) -> None:
        """Count the pseudo-labels of a step for the unlabelled images *indices* (U,)."""
        rows = self.truth[indices] * self.num_classes
        ones = torch.ones_like(pseudo_labels.mask)
        for name, labels in pseudo_labels.labels.items():
            self._count(name, rows + labels, ones)
        self._count("confident", rows + pseudo_labels.labels["final"], pseudo_labels.mask)

    def _count(self, name: str, cells: Tensor, weight: Tensor) -> None:
        if name not in self._counts:
            size = (self.num_classes + 1) * self.num_classes
            self._counts[name] = torch.zeros(size, device=cells.device)
        # float32 counts whole numbers exactly up to 16.7 million, far more than come between two looks.
        self._counts[name].scatter_add_(0, cells, weight)

    def take(self) -> dict[str, Any]:
        """Return the numbers since the last call and start anew; {} if nothing was counted.

        ``share_confident``, and for ``linear``, ``semantic`` (if there), ``final`` and ``confident`` (the final
        ones over the threshold) what ``pseudo_label_metrics`` returns.
        """
        counts = {name: count.cpu().numpy() for name, count in self._counts.items()}
        self._counts = {}
        if not counts:
            return {}
        shape = (self.num_classes + 1, self.num_classes)
        numbers = {name: pseudo_label_metrics(count.reshape(shape)) for name, count in counts.items()}
        share = counts["confident"].sum() / counts["final"].sum()
        return {"share_confident": float(share), **numbers}


class LossRecord:
    """Sums losses on the device; their means come to the host when asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of a step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._steps += 1

    def take(self) -> dict[str, float]:
        """Return the mean of each loss since the last call, and start anew."""
        names = list(self._sums)
        means = (torch.stack([self._sums[name] for name in names]) / self._steps).tolist()
        self._sums, self._steps = {}, 0
        return dict(zip(names, means, strict=True))
