"""FixMatch with other thresholds, weights of its guesses, or priors in its losses."""
