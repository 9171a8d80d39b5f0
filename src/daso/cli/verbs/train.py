"""``daso train``: train a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from daso.cli.processes.signals import if_stopped
from daso.cli.training.command import REPEAT, parse_train


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say; torch is imported once they are valid."""
    with if_stopped(REPEAT):
        request = parse_train(argv)
        from daso.cli.training.session import train

    return train(request)
