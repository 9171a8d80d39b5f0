"""The options that the help of the command line shows."""

from __future__ import annotations

import contextlib
import functools
import io
import re

from daso.cli import VERBS, main

METHODS = (
    "fixmatch+la+daso+abc",
    "mixtureteacher+mixture",
    "remixmatch+darp+crest",
    "supervised",
    "fixmatch+align+estimate+darp",
    "fixmatch+ldam+crt",
    "simpro",
    "acr",
    "cossl",
)
"""Which together have the hyper-parameters of most parts."""


@functools.cache
def options(verb: str, method: str | None) -> set[str]:
    """Return the options that the help of a verb shows."""
    output = io.StringIO()
    arguments = [*verb.split(), *(["digits", "--method", method] if method else []), "--help"]
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main(arguments)
    return set(re.findall(r"--[a-z][a-z-]*", output.getvalue()))


def of_verb(verb: str) -> set[str]:
    """Return the options of a verb, those of ``METHODS`` too."""
    if verb == "train":
        return set().union(*(options(verb, method) for method in METHODS))
    return options("data check" if verb == "data" else verb, None)


def all_options() -> set[str]:
    """Return the options of all verbs."""
    return set().union(*map(of_verb, VERBS))
