"""``daso data check``: find what is wrong with a data set before training on it."""
