"""``daso train``: train a classifier."""

from __future__ import annotations

from collections.abc import Sequence

from daso.cli.training.command import parse_train


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say; torch is imported once they are valid."""
    request = parse_train(argv)
    from daso.cli.training.session import train

    return train(request)
