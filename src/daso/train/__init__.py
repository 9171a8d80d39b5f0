"""Training: options, batches, the loop, checkpoints and run folders."""
