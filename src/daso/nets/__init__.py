"""Encoders, the network (normalization, encoder and named heads) and its moving average."""

from daso.nets.ema import MovingAverage
from daso.nets.encoders import Encoder
from daso.nets.network import Network, build_encoder, build_vector_encoder

__all__ = ["Encoder", "MovingAverage", "Network", "build_encoder", "build_vector_encoder"]
