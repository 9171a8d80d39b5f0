"""Trained models in use: images in, probabilities out; from run folders, and from files to give away."""

from daso.export.loading import load

__all__ = ["load"]
