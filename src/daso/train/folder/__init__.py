"""The run folder: checkpoints, environment, lock, and what happens to diverged runs."""
