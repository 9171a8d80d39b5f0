"""One module per verb; each has ``run(argv)``."""
