"""``daso train``: its arguments, which are looked at before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daso.cli.training.command import given_options, parse_train
from daso.train.config import RunConfig


def like_of(argv: Sequence[str]) -> Path | None:
    """Return the value of ``--like``, which decides the method where no other is named."""
    for index, argument in enumerate(argv):
        if argument == "--like" and index + 1 < len(argv):
            return Path(argv[index + 1])
        if argument.startswith("--like="):
            return Path(argument.partition("=")[2])
    return None


def with_source_and_method(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the source, and if need be the method, of the run that ``--like`` names, if it does.

    Raises:
        RunError: there is no such run.
    """
    like = like_of(argv)
    if like is None:
        return list(argv)
    config, given = RunConfig.read(like), given_options(argv)
    method = [] if "method" in given else ["--method", config.method]
    return [config.source, *argv, *method]


def run(argv: Sequence[str]) -> int:
    """Train as the arguments say."""
    argv = with_source_and_method(argv)
    command, method_options = parse_train(argv)
    from daso.cli.training.session import train

    return train(command, method_options, argv)
