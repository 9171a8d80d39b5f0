"""Imports go one way, so that each part can be read, tested and used without what is built on it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import daso

ROOT = Path(daso.__file__).parent
LEVELS = {
    "": 9,
    "errors": -1,
    "lazy": -1,
    "balance": 0,
    "catalog": 0,
    "constraints": 0,
    "files": 0,
    "parts": 0,
    "data": 1,
    "nets": 1,
    "views": 1,
    "losses": 1,
    "refine": 2,
    "evaluate": 2,
    "report": 2,
    "terms": 3,
    "plans": 3,
    "methods": 4,
    "track": 1,
    "compose": 5,
    "train": 6,
    "presets": 7,
    "reproduce": 8,
    "estimator": 8,
    "export": 8,
    "cli": 9,
    "__main__": 10,
}
"""A part may import itself and what has a lower level."""
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Return the full name of every module or member that a file imports, at any depth of the code."""
    package = name_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    return imported(path.read_text(encoding="utf-8"), package)


def imported(code: str, package: list[str]) -> Iterator[str]:
    """Yield what code imports that stands in a module of *package*."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: ``daso.train.run`` to ``train``."""
    names = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    second = [*module.split("."), ""][1]
    return second if second in names else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    own = part_of(name_of(path))
    assert own in LEVELS, f"give {own!r} a level"
    for module in imports(path):
        if module.split(".")[0] != "daso":
            continue
        other = part_of(module)
        allowed = other == own or LEVELS[other] < LEVELS[own]
        assert allowed, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "report").rglob("*.py")), ids=name_of)
def test_reports_import_only_errors_and_file_formats(path: Path) -> None:
    parts = {part_of(module) for module in imports(path) if module.split(".")[0] == "daso"}
    assert parts <= {"report", "errors", "files", "balance"}


@pytest.mark.parametrize(
    "name",
    ["report", "evaluate/metrics.py", "evaluate/summary.py", "evaluate/__init__.py", "errors.py"],
)
def test_no_torch(name: str) -> None:
    paths = [ROOT / name] if name.endswith(".py") else sorted((ROOT / name).rglob("*.py"))
    assert paths
    for path in paths:
        assert "torch" not in {module.split(".")[0] for module in imports(path)}, name_of(path)


def test_the_front_of_the_command_line_imports_only_the_standard_library_and_errors() -> None:
    found = set(imports(ROOT / "cli" / "__init__.py"))
    assert {module.split(".")[0] for module in found} - set(sys.stdlib_module_names) <= {"daso"}
    assert {part_of(module) for module in found if module.startswith("daso")} <= {"errors"}


def test_imports_are_found_at_any_depth() -> None:
    code = """
import os
def f():
    from daso.cli import main
    if main:
        from . import run
        from ..cli.verbs.train import free_folder
"""
    found = sorted(imported(code, ["daso", "train"]))
    assert found == ["daso.cli.main", "daso.cli.verbs.train.free_folder", "daso.train.run", "os"]
