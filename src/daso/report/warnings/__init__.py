"""Warnings about a training, from its rows of numbers."""
