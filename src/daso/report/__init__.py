"""Tables and pictures of runs. Reads run folders, and nothing else of the package but their file formats."""
