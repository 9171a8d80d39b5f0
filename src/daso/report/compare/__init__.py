"""Compare runs across methods and seeds."""
