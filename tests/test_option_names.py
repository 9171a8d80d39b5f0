"""Messages that the command line and Python share name an option for both: labeled_head (--labeled-head)."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import daso
import daso.errors
from daso.compose import Recipe
from daso.train.config import GROUPS

SOURCES = Path(daso.__file__).parent


def options() -> set[str]:
    """Return the options whose names in Python and in a shell differ."""
    names = {field.name for kind in GROUPS.values() for field in dataclasses.fields(kind)}
    for method in (
        "fixmatch+daso+darp",
        "remixmatch+crest-plus",
        "fixmatch+ldam",
        "supervised+la+mixture",
    ):
        names |= Recipe.parse(method).hyperparameters().keys()
    return {name for name in names if "_" in name}


def refusals() -> Iterator[tuple[str, str]]:
    """Yield the texts of what is raised, values in braces, and their places."""
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and node.exc is not None:
                inner = {
                    id(part)
                    for text in ast.walk(node.exc)
                    if isinstance(text, ast.JoinedStr)
                    for part in text.values
                }
                for text in ast.walk(node.exc):
                    if id(text) in inner:
                        continue
                    if isinstance(text, ast.JoinedStr):
                        parts = (
                            p.value if isinstance(p, ast.Constant) else "{}" for p in text.values
                        )
                        yield "".join(map(str, parts)), f"{file}:{node.lineno}"
                    elif isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield text.value, f"{file}:{node.lineno}"


def test_a_refusal_names_options_as_a_shell_has_them() -> None:
    word = re.compile(rf"(?<![-\w])({'|'.join(sorted(options()))})(?![\w-])(?P<rest>.*)", re.S)
    alone = [
        f"{place}: {text}"
        for text, place in refusals()
        if " " in text
        and (found := word.search(text))
        and not re.match(r"( = \{\})? \((--|\{)", found["rest"])
    ]
    assert not alone, "\n".join(alone)


def test_keys_of_a_configuration_are_named_as_options() -> None:
    assert daso.errors.named_key("train.learning_rate") == "--learning-rate"
    assert daso.errors.named_key("folders.unlabeled") == "--unlabeled"
    assert daso.errors.named_key("source") == "source"
    assert daso.errors.named("labeled_head") == "labeled_head (--labeled-head)"
