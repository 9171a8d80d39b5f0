"""Encoders for training from scratch."""
