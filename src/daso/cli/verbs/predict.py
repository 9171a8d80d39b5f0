"""``daso predict``: classify images with a trained model."""

from __future__ import annotations

from daso.cli.prediction.command import PredictCommand


def run(command: PredictCommand) -> int:
    """Predict; return 1 if an image could not be read, else 0."""
    from daso.cli.prediction.classify import classify

    return classify(command)
