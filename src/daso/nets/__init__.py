"""Encoders, the network (encoder, normalization and named heads) and its moving average."""
