"""Options, tables, counters and the live view of the terminal."""
