"""What messages of the source advise is done by a test, or stands below with a reason.

Advice is recognized by what it names: an option, a command or a package. It is done if a string of
the tests of advice, in ``TESTS``, has its words: the name, and at least a word beside it; and every
message needs a string of its own. So a new message fails here until a case of a table in ``TESTS``
does as it says (see ``helpers/advice.py``). Advice that names nothing ("remove it") is not recognized.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from test_advice_words import ROOT, texts

from daso.cli import VERBS

TESTS = ("cli/test_advice*.py", "cli/advice_tables/*.py", "report/test_advice*.py")
NAMED = re.compile(
    rf"(?<![\w-])--[a-z][a-z-]+|\bdaso ({'|'.join(VERBS)})\b|\bpip install\b"
    r"|\bpython -m daso[\w.]*|\btorchrun\b"
)
GIVEN = re.compile(r"^(note: )?--[a-z-]+|\(--[a-z-]+(, \w+)?\)")
"""What a message is about: an option that it begins with, or one in brackets behind a value."""
NO_ADVICE = {
    r"^[A-Z][^;]*: daso [a-z]+ [^;]*$|^daso: |usage: ": "help",
    r"pip install '?(daso\[|\{)": "test_advice_words.py: the extra exists and has the package",
    r"labels? of daso label|daso label (printed|is empty)": "the page, as a noun",
    r"daso train refuses|daso predict (\{\}|divides|answers)": "a fact, not advice",
    r"^with --align False|^only --freeze embeds": "why an option has no effect",
    r"ImageNet's in the paper": "needs weights of ImageNet",
    r"a longer --warmup-steps|a lower --threshold uses|or lower --learning-rate|check some of them": "report/test_checks.py tests a part; what it does to a training is not tested",
    r"leave these lines out: --skip-bad": "data/test_semi_aves.py",
}
"""Messages that name something and need no case here, with the reason."""


def advice() -> dict[str, str]:
    """Return the messages that advise something, with the place of each."""
    found: dict[str, str] = {}
    for place, text in texts():
        rest = GIVEN.sub("", text)
        words = re.findall(r"[^\W\d_]{2,}", NAMED.sub("", rest.replace("{}", "")))
        if NAMED.search(rest) and len(words) > 1:
            found.setdefault(text, place)
    return found


def done() -> list[str]:
    """Return the strings of the tests of advice that name something; many are patterns."""
    files = [file for where in TESTS for file in (ROOT / "tests").glob(where)]
    nodes = (
        node
        for file in files
        if file != Path(__file__)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    )
    texts = (n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [text for text in texts if NAMED.search(re.sub(r"[()\\]", "", text))]


def is_named(words: str) -> bool:
    return NAMED.search(words) is not None and len(words.split()) > 1


def covers(text: str, message: str) -> bool:
    """Whether a string of a test has the words of a message, in a clause or as a pattern."""
    plain = re.sub(r"(?<!\\)[()]|\\(?=\W)", "", text)
    clauses = [text, *map(str.strip, re.split(r"[][;:,.*+?{}$]", plain))]
    if any(is_named(clause) and clause in message for clause in clauses) or message in plain:
        return True
    try:
        pattern = re.compile(text)
    except re.error:
        return False
    filled = (message.replace("{}", value) for value in ("2", "x"))
    return any(is_named(found[0]) for text in filled for found in pattern.finditer(text))


def test_all_advice_is_done_by_a_test() -> None:
    messages, strings = advice(), done()
    left = [text for text in messages if not any(re.search(one, text) for one in NO_ADVICE)]
    table = csr_array([[covers(string, text) for string in strings] for text in left], dtype=int)
    of_text = maximum_bipartite_matching(table, perm_type="column")
    undone = [text for text, string in zip(left, of_text, strict=True) if string < 0]
    assert not undone, "\n".join(f"{messages[text]}: {text}" for text in undone)
    for pattern in NO_ADVICE:
        assert any(re.search(pattern, text) for text in messages), f"of no message: {pattern}"
