"""Labeling in rounds: what to label next, what was labeled, and what it brought."""
