"""The default loss on labeled images, and the base class of the others."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from daso.parts import Part


class LabeledLoss(Part):
    """Maps logits and labels to a scalar; this one is the mean cross-entropy."""

    kind: ClassVar[str] = "labeled loss"

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: float, (B, K).
            labels: int64, (B,).
            step: int64, (), training steps done so far.
        """
        return F.cross_entropy(logits, labels)
