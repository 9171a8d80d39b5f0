"""The report of a run: one HTML file that needs nothing else, from the files of the run folder."""
