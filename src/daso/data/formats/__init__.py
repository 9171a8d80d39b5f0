"""Readers of custom data: folders, manifests, Parquet, Arrow, tar shards, arrays."""
