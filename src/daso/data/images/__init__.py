"""Images encoded, decoded, and on the training device: one file for each form."""
