"""Encoders with pretrained weights: transformers, timm, and our own from files."""
