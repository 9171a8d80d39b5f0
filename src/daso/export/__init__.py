"""Trained models in use: from run folders and exported files to probabilities."""

from daso.export.loading import load

__all__ = ["load"]
