"""No advice without a test: what messages of the source tell to do is done somewhere in the tests of advice.

Advice is recognized by what it names: an option, a command or a package to install. It is covered
by a string of the tests of advice that, read as a pattern, finds in the message what it names and at
least a word beside it. So a new message fails here until a case does as it says; see ``helpers/advice.py``.
Advice that names nothing ("remove it") is not recognized.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from test_advice_words import ROOT, texts

from daso.cli import VERBS

NAMED = re.compile(
    rf"(?<![\w-])--[a-z][a-z-]+|\bdaso ({'|'.join(VERBS)})\b|\bpip install\b"
    r"|\bpython -m daso[\w.]*|\btorchrun\b"
)
TESTS = ("cli/test_advice*.py", "report/test_advice*.py", "nets/test_advice*.py")
GIVEN = re.compile(
    r"^(note: )?--[a-z-]+|\(--[a-z-]+(, \w+)?\)|^steps = 0 is out of range \(--steps\)"
)
"""What was given and is refused, or where: the subject of a message, or a name in brackets."""
NO_ADVICE = {
    r"^[A-Z][^;]*: daso [a-z]+ [^;]*$": "the list of verbs",
    r"^daso:? |usage: ": "the help of a verb",
}
"""Patterns of messages that name something and advise nothing, with the reason."""


def advice() -> dict[str, str]:
    """Return the messages that advise something, with the place of each."""
    found = {}
    for place, text in texts():
        rest = GIVEN.sub("", text)
        words = re.findall(r"[^\W\d_]{2,}", NAMED.sub("", rest.replace("{}", "")))
        if NAMED.search(rest) and len(words) > 1:
            found.setdefault(text, place)
    return found


def patterns() -> list[re.Pattern[str]]:
    """Return the strings of the tests of advice that name something."""
    found = []
    for file in (file for where in TESTS for file in (ROOT / "tests").glob(where)):
        if file == Path(__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and NAMED.search(re.sub(r"[()\\]", "", text)):
                found.append(text)
    return [re.compile(text) for text in found if _is_pattern(text)]


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def covers(pattern: re.Pattern[str], text: str) -> bool:
    return any(
        NAMED.search(found[0]) and len(found[0].split()) > 1
        for value in ("2", "new", "")
        for found in pattern.finditer(text.replace("{}", value))
    )


def test_all_advice_is_done_by_a_test() -> None:
    known, messages = patterns(), advice()
    open_ = {
        text: place
        for text, place in messages.items()
        if not any(re.search(one, text) for one in NO_ADVICE)
        and not any(covers(one, text) for one in known)
    }
    assert not open_, "\n".join(f"{place}: {text}" for text, place in open_.items())
    unused = [one for one in NO_ADVICE if not any(re.search(one, text) for text in messages)]
    assert not unused, "these patterns are of no message"
