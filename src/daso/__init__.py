"""Train image classifiers from few, class-imbalanced labels and many unlabelled images."""
