"""What a person sees of a training: on a terminal, in a log, and when asked to be quiet."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import command, finish, start
from rich.console import Console

from daso.cli.terminal.follow import PLAIN_PERIOD_SECONDS, follow
from daso.cli.terminal.live_view import View

Row = dict[str, Any]


def view() -> View:
    return View("run", 30, class_names=["cat", "dog"], labeled=[9, 3])


def rows(warned: bool = True) -> Iterator[Row]:
    for step in (10, 20, 30):
        yield {
            "event": "train",
            "step": step,
            "loss": 1.0,
            "losses": {"labeled": 0.5, "unlabeled": 0.5},
            "share_confident": 0.25,
            "steps_per_second": 5.0,
            "seconds": step / 5,
        }
        row: Row = {
            "event": "evaluate",
            "step": step,
            "test": {"balanced_accuracy": 0.5, "recall": [0.75, 0.25]},
        }
        if step == 20 and warned:
            row["warnings"] = [{"kind": "T_dist", "message": "[b]it is off", "advice": "Mend it."}]
        if step == 10:
            row["readout"] = {"gain": 0.1, "gain_error": 0.05, "unlabeled_weight": 0.3}
        yield row
    yield {"event": "pause", "step": 30}


def shown(terminal: bool, seconds: float = 0.0, **options: Any) -> str:
    """Follow the rows, which come so many seconds apart; return what is shown."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, height=24)
    now = 0.0

    def timed() -> Iterator[Row]:
        nonlocal now
        for row in rows():
            now += seconds
            yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daso.cli.terminal.follow.time.monotonic", lambda: now)
        follow(timed(), view(), console=console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lines_where_the_output_is_no_terminal() -> None:
    text = shown(False)
    lines = text.splitlines()
    # What a readout chose, one warning, one line at the end, and the summary; the other rows came
    # too early.
    assert len(lines) == 4
    assert lines.pop(0).startswith("Unlabeled images weigh 0.3 times the labels in the mixture: ")
    assert lines[0] == "warning, step 20: [b]it is off. Mend it."
    assert "step 30/30" in lines[1]
    assert "balanced accuracy 50.0%" in lines[1]
    assert lines[2].startswith("run: balanced accuracy 50.0% on test images at the end; ")
    assert lines[2].endswith("worst recall: dog 25%, cat 75%")
    assert "\x1b" not in text
    # Every step of which a row comes a period after the last line is another line, once.
    for late, steps in ((1, [10, 20, 30]), (-1, [10, 20, 30])):
        text = shown(False, PLAIN_PERIOD_SECONDS + late)
        assert list(map(int, re.findall(r"  step (\d+)/30", text))) == steps


def test_quiet_leaves_only_warnings() -> None:
    for terminal in (False, True):
        text = shown(terminal, quiet=True)
        assert re.sub(r"\x1b\[[\d;]*m", "", text) == "warning, step 20: [b]it is off. Mend it.\n"


def test_a_live_view_leaves_warnings_and_a_summary() -> None:
    text = shown(True)
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    after = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text[text.rindex("\x1b[?25h") :])
    assert after.split("\n")[-2].endswith("worst recall: dog 25%, cat 75%")
    assert "warning, step 20: [b]it is off. Mend it." in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)


def test_an_error_gives_the_terminal_back() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)

    def broken() -> Iterator[Row]:
        yield next(rows())
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the one above
        follow(broken(), View("run", 30), console=console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def command_in_terminal(terminal: str, words: list[str]) -> None:
    os.login_tty(os.open(terminal, os.O_RDWR | os.O_NOCTTY))
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm-256color"
    command(words)


def in_terminal(words: list[str], width: int, height: int) -> str:
    """Run the command line in a terminal of its own; return what it shows."""
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = start(command_in_terminal, os.ttyname(terminal), words)
    found = os.read(screen, 65536)
    os.close(terminal)  # the process has it
    with contextlib.suppress(OSError):
        while part := os.read(screen, 65536):
            found += part
    os.close(screen)
    assert finish(process) == 0, found.decode(errors="replace")
    return found.decode(errors="replace")


@pytest.mark.process
def test_a_real_training_in_a_real_terminal(tmp_path: Path) -> None:
    options = (
        "--network small-4 --batch 8 --steps 40 --evaluate-every 10 --device cpu --threshold 0.3"
    )
    text = in_terminal(
        ["train", "digits", "--out", str(tmp_path / "run"), *options.split()], 80, 24
    )
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)
    assert "40 steps in " in plain
    assert "━" in plain
    assert "labeled" in plain
    # Going up over a view of 24 lines would scroll the terminal: it must be lower than that.
    up = "\x1b[1A\x1b[2K"
    assert 0 < max(map(len, re.findall(rf"(?:{re.escape(up)})+", text))) < 24 * len(up)


def test_a_dumb_terminal_gets_lines() -> None:
    dumb = {"TERM": "dumb", "COLUMNS": "80", "LINES": "24"}
    console = Console(file=io.StringIO(), force_terminal=True, _environ=dumb)
    follow(rows(), view(), console=console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "step 30/30" in text
    assert "\x1b[?25l" not in text
