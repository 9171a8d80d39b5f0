"""A first-in-first-out queue of labeled features for each class, and its prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrototypeQueue(nn.Module):
    """Keep the last L_k features of every class k; a prototype is the mean of its class's queue.

    One ring buffer of fixed shape holds all classes. A row's slot is (rows of its class seen so far
    + its rank among the batch's rows of its class) mod L_k, so a step is one indexed write, without
    a loop over classes and without a host synchronization. A class that was never seen has the zero
    prototype, whose cosine is 0.

    Args:
        lengths: int64, (K,), L_k, at least 1 each.
        dim: D, the length of a feature.

    Attributes:
        prototypes: float, (K, D), after the last ``push``.
    """

    def __init__(self, lengths: Tensor, dim: int) -> None:
        super().__init__()
        classes, longest = len(lengths), int(lengths.max())
        # The last row takes rows that a later row of the same batch overwrites.
        self.features = nn.Buffer(torch.zeros(classes * longest + 1, dim))
        self.seen = nn.Buffer(torch.zeros(classes, dtype=torch.int64))
        self.lengths = nn.Buffer(lengths.clone())
        self.prototypes = nn.Buffer(torch.zeros(classes, dim))
        self.longest = longest

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> None:
        """Append features, float (B, D), of labels, int64 (B,), and update the prototypes."""
        classes = len(self.lengths)
        one_hot = F.one_hot(labels, classes)
        arrivals = one_hot.sum(0)
        rank = (one_hot.cumsum(0) - 1).gather(1, labels[:, None]).squeeze(1)
        lengths = self.lengths[labels]
        slot = labels * self.longest + (self.seen[labels] + rank) % lengths
        overwritten = rank < arrivals[labels] - lengths
        self.features[torch.where(overwritten, classes * self.longest, slot)] = features
        self.seen.add_(arrivals)
        queues = self.features[:-1].view(classes, self.longest, -1)
        # Only classes of this batch have changed; with more classes than rows, update only those.
        if len(labels) < classes:
            self.prototypes[labels] = self._mean(queues[labels], labels)
        else:
            self.prototypes.copy_(self._mean(queues, slice(None)))

    def _mean(self, queues: Tensor, classes: Tensor | slice) -> Tensor:
        filled = torch.minimum(self.seen, self.lengths)[classes]
        # Slots that were never written hold zeros and do not change the sum.
        return queues.sum(1) / filled.clamp(min=1)[:, None]

    def similarity(self, features: Tensor) -> Tensor:
        """Return the cosines (N, K) between features (N, D) and the prototypes."""
        prototypes = F.normalize(self.prototypes, dim=1, eps=1e-8)
        return F.normalize(features, dim=1, eps=1e-8) @ prototypes.T
