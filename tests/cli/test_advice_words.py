"""Every command, option, extra and module that a message of the source names exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_options import all_options, of_verb

from daso.cli import VERBS

ROOT = Path(__file__).parent.parent.parent
FOREIGN = {
    "--nproc-per-node": "torchrun", "--max-restarts": "torchrun", "--sort": "tar", "--include": "hf download",
    "--local-dir": "hf download", "--help": "", "--version": "",
}  # fmt: skip
"""Options of other programs, and the one that the message must name; of all verbs: none."""
CALLS = "environment.py"
"""File that calls git."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield place and text of every string of the source but docstrings; {} for what is put in."""
    files = (file for file in (ROOT / "src" / "daso").rglob("*.py") if file.name != CALLS)
    for file in sorted(files):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        alone = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        joined = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
        inside = {id(part) for n in joined for part in n.values}
        for node in ast.walk(tree):
            text = None
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = None if id(node) in alone | inside else node.value
            if text:
                yield f"{file.relative_to(ROOT)}:{node.lineno}", text


def imports() -> Iterator[tuple[str, str, str]]:
    """Yield place, package and extra of every optional import; "" for a package in a loop."""
    for file in sorted((ROOT / "src" / "daso").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_extra":
                module, extra = (
                    one.value if isinstance(one, ast.Constant) else "" for one in node.args[:2]
                )
                yield (
                    f"{file.relative_to(ROOT)}:{node.lineno}",
                    str(module).partition(".")[0],
                    str(extra),
                )


def test_optional_packages_are_in_the_extras_that_errors_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wrong = [
        f"{place}: {package} is not in {extra!r}"
        for place, package, extra in imports()
        if package.replace("_", "-")
        not in ", ".join(project["optional-dependencies"].get(extra, ["-"]))
        or extra not in project["optional-dependencies"]
    ]
    assert not wrong
    assert len(list(imports())) > 3


def test_what_messages_name_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras, known = set(project["project"]["optional-dependencies"]), all_options()
    wrong, counts = [], {"extras": 0, "packages": 0, "commands": 0, "options": 0, "modules": 0}
    for place, text in texts():
        for extra in re.findall(r"daso\[(\w+)\]", text):
            counts["extras"] += 1
            wrong += [] if extra in extras else [f"{place}: the extra {extra}"]
            needed = ", ".join(project["project"]["optional-dependencies"].get(extra, ()))
            for package in re.findall(r"\bneeds? ([a-z][\w-]*):", text):
                counts["packages"] += 1
                wrong += [] if package in needed else [f"{place}: {package} is not in {extra}"]
        for module in re.findall(r"python -m (daso[\w.]*)", text):
            counts["modules"] += 1
            wrong += [] if importlib.util.find_spec(module) else [f"{place}: {module}"]
        for verb, rest in re.findall(r"(?:'|: |\()daso ([a-z]+)\b([^';)]*)", text):
            counts["commands"] += 1
            if verb not in VERBS:
                wrong.append(f"{place}: daso {verb}")
                continue
            named = set(re.findall(r"--[a-z][a-z-]*", rest))
            wrong += [f"{place}: daso {verb} {one}" for one in named - of_verb(verb)]
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            counts["options"] += 1
            if option in FOREIGN:
                wrong += [] if FOREIGN[option] in text else [f"{place}: {option} of nothing"]
            elif option not in known and option.rstrip("-") == option:
                wrong.append(f"{place}: {option}")
    assert not wrong
    print(counts)
    assert min(counts.values()) > 0
