"""The command line: ``daso VERB ...``. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn, TextIO

from daso.errors import DasoError, OptionError, nearest

VERBS = {
    "demo": "Watch DASO learn the rare classes of a long-tailed data set, against two baselines.",
    "data": "Look a data set over before training: daso data check SOURCE",
    "train": "Train a classifier: daso train SOURCE --method fixmatch+daso --out RUN",
    "resume": "Go on with a run that was stopped: daso resume RUN",
    "evaluate": "Measure the model of a run on its test and hold-out images: daso evaluate RUN",
    "validate": "Estimate by cross-validation how good a run is, rare classes too: daso validate RUN",
    "predict": "Classify images with the model of a run: daso predict RUN IMAGES... --out FILE.csv",
    "export": "Write the model of a run as one file, checked, with a card: daso export RUN --format onnx",
    "compare": "Compare runs across methods and seeds: daso compare RUN...",
    "report": "Show what a run believes, as one HTML file: daso report RUN",
    "plot": "Draw the pictures of a run anew: daso plot RUN",
    "methods": "List the methods and the parts to add to them, or show one: daso methods fixmatch+daso",
    "presets": "List the benchmark settings by name, or show one: daso presets cifar10-n500-g100",
    "reproduce": "Run and print a table of the paper: daso reproduce 1 --scale lite",
}

INTERRUPTED = 130
LAST = 10.0
"""Seconds for what is to be done at the exit of a process that cannot end by itself."""


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "daso: train image classifiers from few, class-imbalanced labels and many unlabelled images.",
            "",
            "usage: daso VERB [OPTIONS]",
            "",
            *lines,
            "",
            "daso VERB --help shows a verb's options. daso --version shows the version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 an error that the user can mend, 2 wrong usage.

    A reader that has closed standard output or error before the end (``daso methods | head -1``) ends it with 1, in
    silence. Without *arguments* those of the process are taken.
    """
    try:
        try:
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not closed:
            raise
        for stream in closed:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        status = 1
    return status


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("daso"))
        return 0
    verb, *rest = argv
    try:
        if verb not in VERBS:
            raise OptionError(
                f"unknown verb {verb!r}; verbs: {', '.join(VERBS)}.{nearest(verb, VERBS)}"
            )
        importlib.import_module("daso.cli.early").refuse_early(verb, rest)
        run = importlib.import_module(f"daso.cli.verbs.{verb}").run
        return int(run(rest) or 0)
    except DasoError as error:
        print(f"daso: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:
        print("daso: stopped", file=sys.stderr)
        return INTERRUPTED


def _has_no_reader(stream: TextIO) -> bool:
    """Tell whether a stream is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    try:
        poll.register(stream, 0)
    except (OSError, ValueError):  # it is no file of the system's
        return False
    return bool(poll.poll(0))


def leave(status: int) -> NoReturn:
    """End this process at once, whatever its threads are at; what is to be done at the exit has a few seconds.

    A thread that hangs, or that goes on while the interpreter ends, may keep the process from ending, or abort it.
    """
    last = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    last.start()
    last.join(LAST)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
