"""The scikit-learn estimator."""

from daso.estimator.classifier import DASOClassifier

__all__ = ["DASOClassifier"]
