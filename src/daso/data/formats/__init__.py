"""Readers of custom data: folders, manifests, Parquet, Arrow, tar shards, arrays.

What is missing, damaged or contradictory in the data is a ``DataError``, a package that is not
installed a ``MissingDependencyError``.
"""
