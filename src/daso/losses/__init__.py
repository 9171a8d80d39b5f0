"""Losses on labelled images: what labels teach, and how rare classes are made to count."""
