"""One training step: batches, views, the update, its record."""
