"""Readers of the named data sets, and the downloads of their files."""
