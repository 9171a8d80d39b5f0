"""The linear ramp of losses on unlabeled images, whose guesses are poor at first."""

from __future__ import annotations

import torch
from torch import Tensor


def ramp(step: Tensor, ratio: float, total_steps: int) -> Tensor:
    """Return min(step / (ratio * total_steps), 1), a float scalar on the device of *step*.

    Args:
        step: int64, (), training steps done so far.
        ratio: share of the training after which the ramp is at 1, 0 to 1; 0: it is 1 throughout.
        total_steps: of the training.
    """
    length = ratio * total_steps
    return (step / length).clamp(max=1) if length else torch.ones_like(step, dtype=torch.float32)
