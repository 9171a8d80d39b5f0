"""An encoder of one's own that is frozen, and the embeddings of a run on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from daso.data.source import Source
from daso.train.config import RunConfig
from daso.train.encoder.embeddings import EmbeddedData
from daso.train.prepare import prepare


class Patches(nn.Module):
    """Random features of patches: an encoder of one's own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(24, 1, 4, 4, generator=generator))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += len(x)
        return nn.functional.conv2d(x, self.weight, stride=2).relu().flatten(1)


def embedded(config: RunConfig, source: Source, encoder: nn.Module | None = None) -> EmbeddedData:
    data = prepare(config, source, encoder=encoder or Patches()).data
    assert isinstance(data, EmbeddedData)
    return data
