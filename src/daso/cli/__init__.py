"""The command line: ``daso VERB ...``. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

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
    """Run the command line and return its exit status: 0 done, 1 an error that the user can mend, 2 wrong usage."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
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
            raise OptionError(f"unknown verb {verb!r}; verbs: {', '.join(VERBS)}.{nearest(verb, VERBS)}")
        importlib.import_module("daso.cli.early").refuse_early(verb, rest)
        run = importlib.import_module(f"daso.cli.{verb}").run
        return int(run(rest) or 0)
    except DasoError as error:
        print(f"daso: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("daso: stopped", file=sys.stderr)
        return INTERRUPTED
