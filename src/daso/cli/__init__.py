"""The command line: ``daso VERB ...``. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from daso.errors import REFUSALS, DasoError, OptionError, nearest, refusal

VERBS = {
    "demo": "Watch DASO learn the rare classes of a long-tailed data set, against two baselines.",
    "data": "Check a data set before training: daso data check SOURCE",
    "label": "Label the images that help most, in the browser: daso label SOURCE|RUN",
    "train": "Train a classifier: daso train SOURCE --method fixmatch+daso --out RUN",
    "resume": "Resume a run that was stopped: daso resume RUN",
    "evaluate": "Measure the model of a run on its test and hold-out images: daso evaluate RUN",
    "validate": "Estimate accuracy by cross-validation, rare classes included: daso validate RUN",
    "calibrate": "Calibrate a run on labels that its training has not seen: daso calibrate RUN",
    "predict": "Classify images with the model of a run: daso predict RUN IMAGES... --out FILE.csv",
    "export": "Write the model of a run as one file, with a card: daso export RUN --format onnx",
    "compare": "Compare runs across methods and seeds: daso compare RUN...",
    "report": "Show what a run has learned, as one HTML file: daso report RUN",
    "plot": "Draw the plots of a run again: daso plot RUN",
    "methods": "List methods and the parts to add to them, or show one: daso methods fixmatch+daso",
    "presets": "List the benchmark settings by name, or show one: daso presets cifar10-n500-g100",
    "reproduce": "Run and print a table of the paper: daso reproduce 1 --scale lite",
}

LISTINGS = ("methods", "presets")
"""Verbs in a folder of their own."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals that end a verb as Ctrl-C does, with a word on how to go on."""


class Ended(KeyboardInterrupt):
    """A signal other than SIGINT asks the process to end.

    Attributes:
        status: exit status after it, as in shells: 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise ``Ended`` for signals that would otherwise end the process without a word."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    own = threading.current_thread() is threading.main_thread()
    handled = [n for n in ENDING if own and signal.getsignal(n) is signal.SIG_DFL]
    try:
        for number in handled:
            signal.signal(number, end)
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def stopped(interrupt: KeyboardInterrupt) -> int:
    """Say that a verb was stopped, and how to go on; return the exit status."""
    print("daso: stopped" + "".join(f"; {text}" for text in interrupt.args), file=sys.stderr)
    return interrupt.status if isinstance(interrupt, Ended) else INTERRUPTED


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{text}" for verb, text in VERBS.items())
    return (
        "daso: train image classifiers from few, imbalanced labels and many unlabeled images.\n\n"
        f"usage: daso VERB [OPTIONS]\n\n{verbs}\n\n"
        "daso VERB --help shows a verb's options. daso --version shows the version."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process.

    Returns:
        The exit status: 0 success, 1 an error that the user can correct or a reader that closed the
            output early (``daso methods | head -1``), 2 wrong usage.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names need not be in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not closed:
            raise
        for stream in closed:
            _silence(stream)
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in REFUSALS:
            raise
        _silence(sys.stdout)  # what is left in it would be written at the exit
        text = f"cannot write the output: {error.strerror}; {REFUSALS[error.errno]}"
        print(f"daso: {text}", file=sys.stderr)
        return 1


def _open_closed_streams() -> None:
    """Let what a shell has closed (``daso train photos/ >&-``) lead to nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the exit


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError):  # the stream has no file descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
        place = f"listings.{verb}" if verb in LISTINGS else verb
        module = importlib.import_module(f"daso.cli.verbs.{place}")
        with _interruptible():
            options = module.run.__annotations__.get("command")
            if options is None:
                return int(module.run(rest) or 0)
            from daso.cli.terminal.parse import parse

            return int(module.run(parse(getattr(module, options), rest, f"daso {verb}")) or 0)
    except DasoError as error:
        print(f"daso: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except OSError as error:
        if not (text := refusal(error)):
            raise
        print(f"daso: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        return stopped(interrupt)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    try:
        poll.register(stream, 0)
    except (OSError, ValueError):  # the stream has no file descriptor
        return False
    return bool(poll.poll(0))


def leave(status: int) -> NoReturn:
    """End this process at once; threads that wait for a lost process would keep it from ending."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
