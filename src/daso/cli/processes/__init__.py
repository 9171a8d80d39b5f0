"""Processes and signals: torchrun, worker processes, Slurm jobs."""
