"""Inputs, outputs and progress of ``daso predict``."""
