"""What of a loss depends on the length of the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def ramp(step: Tensor, ratio: float, total_steps: int) -> Tensor:
    """Return the linear ramp of losses on unlabeled images, whose guesses are poor at first.

    min(step / (ratio * total_steps), 1), a float scalar on the device of *step*.

    Args:
        step: int64, (), training steps done so far.
        ratio: share of the training after which the ramp is at 1, 0 to 1; 0: it is 1 throughout.
        total_steps: of the training.
    """
    length = ratio * total_steps
    return (step / length).clamp(max=1) if length else torch.ones_like(step, dtype=torch.float32)


def never_updated(
    what: str, option: str, options: Mapping[str, Any], total_steps: int
) -> Iterator[str]:
    """Yield a remark if an estimate is updated for the first time after the end of a training.

    Args:
        option: name of the hyper-parameter that gives the steps between two updates.
    """
    if options[option] > total_steps:
        yield (
            f"{what} never changes in a training of {total_steps:,} steps; lower "
            f"--{option.replace('_', '-')} {options[option]}, for example to "
            f"{total_steps // 20 or 1}"
        )
