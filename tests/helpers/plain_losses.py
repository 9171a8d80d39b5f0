"""Probabilities and losses of one image or a list of them, in plain Python."""

from __future__ import annotations

import math
from typing import Any

import torch
from small_learners import K
from torch import Tensor

from daso.methods.method import Batch


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def guesses_of(weak: Tensor) -> list[list[float]]:
    return [softmax(row) for row in weak.tolist()]


def mean_of(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def moved(old: list[float], new: list[float], decay: float) -> list[float]:
    return [decay * a + (1 - decay) * b for a, b in zip(old, new, strict=True)]


def best(probs: list[float]) -> int:
    return max(range(K), key=probs.__getitem__)


def logs(values: list[float], power: float = 1.0) -> Tensor:
    return torch.tensor([power * math.log(value) for value in values], dtype=torch.float64)


def cross_entropy(logits: Tensor, target: list[float] | int, shift: Any = 0.0) -> Tensor:
    target = [float(k == target) for k in range(K)] if isinstance(target, int) else target
    log_probs = (logits + shift) - (logits + shift).exp().sum().log()
    return -sum(t * log_probs[k] for k, t in enumerate(target))  # type: ignore[return-value]


def mean_loss(losses: list[Any]) -> Tensor:
    total: Tensor = sum(losses) / len(losses)  # type: ignore[assignment]
    return total


def labeled_loss(batch: Batch, labeled: Tensor, shift: Any = 0.0) -> Tensor:
    rows = zip(labeled, batch.labels.tolist(), strict=True)
    return mean_loss([cross_entropy(row, label, shift) for row, label in rows])
