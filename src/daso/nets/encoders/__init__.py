"""Encoders that are trained from scratch."""
