"""Readers of the named data sets, and the download of their files.

What is missing or damaged is a ``DataError``.
"""
