"""Reports, comparisons and figures of runs, from their folders alone."""
