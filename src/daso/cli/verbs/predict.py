"""``daso predict``: classify images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence

from daso.cli.prediction.command import PredictCommand
from daso.cli.terminal.parse import parse


def run(argv: Sequence[str]) -> int:
    """Predict; return 1 if an image could not be read, else 0."""
    command = parse(PredictCommand, argv, "daso predict")
    from daso.cli.prediction.classify import classify

    return classify(command)
