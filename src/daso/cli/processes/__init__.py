"""Processes that train together, workers of a campaign, Slurm jobs, and signals."""
