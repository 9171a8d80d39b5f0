"""Trainings on a pretended device, and what their tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DASO: dict[str, Any] = {"warmup_steps": 2, "histogram_period": 2}
METHODS: dict[str, dict[str, Any]] = {
    "supervised": {},
    "fixmatch": {"threshold": 0.2},
    "fixmatch+daso": {"threshold": 0.2, **DASO},
    "fixmatch+ldam+align+sharpen": {"threshold": 0.2, "reweight_from": 0.2},
    "fixmatch+la+abc+daso": {"threshold": 0.2, "balanced_threshold": 0.2, **DASO},
    "boss+class-balanced+daso": {
        "threshold": 0.2,
        "threshold_range": 0.1,
        "queue_encoder": "online",
        **DASO,
    },
    "fixmatch+darp": {"threshold": 0.2, "darp_start": 0.1, "darp_period": 2},
    "pseudolabel": {"threshold": 0.2},
    "meanteacher+daso": DASO,
    "mixmatch": {},
    "remixmatch+daso": DASO,
    "usadtm": {"cosine_threshold": 0.5, "warmup_steps": 0},
}
RECORDABLE = [name for name in METHODS if "darp" not in name]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
"""Tolerance in float64, where only true differences are larger."""


def at_home(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in tensors.items()}


def assert_equal(
    actual: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float
) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, **(tolerance or {"rtol": 0, "atol": 0}), msg=name
        )
