"""What the terminal shows: options, tables, counters, the live view."""
