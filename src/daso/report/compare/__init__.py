"""Runs compared across methods and seeds."""
