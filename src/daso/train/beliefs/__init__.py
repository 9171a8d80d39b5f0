"""What a run believes about its unlabelled images, and what to label next."""
