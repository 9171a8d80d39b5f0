"""Encoders for training from scratch, and the base class of all encoders."""

from torch import nn


class Encoder(nn.Module):
    """Maps normalized images, float (B, C, H, W), or vectors (B, D) to features, float (B, dim)."""

    dim: int
