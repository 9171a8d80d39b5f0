"""Readers of the named data sets, and the download of their files."""
