"""What a model believes about its unlabeled images, and what to label next."""
