"""Encoders, the network (encoder, normalisation and named heads) and its moving average."""
