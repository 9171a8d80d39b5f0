"""Readers: image folders, arrays and published data sets, each turned into one ``Source``."""
