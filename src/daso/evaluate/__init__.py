"""Measure and predict with models, class by class."""
