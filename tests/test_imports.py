"""Imports go one way, so that each part can be read, tested and used without what is built on it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import daso
from tests.conftest import MARKS

ROOT = Path(daso.__file__).parent
MOST_FILES = 14
"""Modules of one folder, without ``__init__``: about a dozen."""

ORDER = {
    "daso": (
        "errors lazy",
        "constraints",
        "balance catalog files parts",
        "readout",
        "data nets views losses track",
        "refine evaluate",
        "report",
        "terms plans",
        "methods",
        "compose",
        "train",
        "presets",
        "reproduce estimator export label",
        "cli",
        "__main__",
    ),
    "daso.data": (
        "images",
        "listing",
        "read_listing",
        "formats benchmarks",
        "journal",
        "open",
        "check labeling",
    ),
    "daso.train": (
        "options",
        "config step folder",
        "encoder",
        "model",
        "prepare loop",
        "beliefs",
        "run",
    ),
    "daso.report": ("runs", "uncertainty reliability tsne", "warnings", "figures html", "compare"),
    "daso.cli": ("terminal", "processes prediction", "training", "verbs"),
}
"""Rooms of a package from the lowest layer up: a room may import itself and rooms of lower layers.

Every room of the package ``daso`` has a layer. Below it a room without one may stand anywhere, but in no circle.
"""
ALLOWED = {
    "report": {"errors", "files", "balance", "evaluate"},
    "evaluate/metrics.py": {"errors", "files", "evaluate"},
    "evaluate/summary.py": {"errors", "files", "evaluate"},
}
"""What else in daso a part may import: parts of the package by name."""
NO_TORCH = (
    "errors.py",
    "evaluate/__init__.py",
    "evaluate/metrics.py",
    "evaluate/reliability.py",
    "evaluate/summary.py",
    "report",
)


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the full names of their modules."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(code: str, package: list[str]) -> Iterator[str]:
    """Yield the full name of every module or member that code of *package* imports, at any depth."""
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


@cache
def imports(module: str) -> tuple[str, ...]:
    """Return the full names of what a module of daso imports."""
    path = modules()[module]
    package = module.split(".")[: None if path.name == "__init__.py" else -1]
    return tuple(imported(path.read_text(encoding="utf-8"), package))


def own_imports(module: str) -> set[str]:
    """Return the modules of daso, a member's module for the member, that a module imports."""
    found = set()
    for name in imports(module):
        while name not in modules() and "." in name:
            name = name.rpartition(".")[0]
        found.add(name)
    return {name for name in found if name.startswith("daso") and name != module}


def room_of(package: str, module: str) -> str:
    """Return the sub-package or module of *package* in which a module is; empty if it is none of it."""
    below = module.removeprefix(f"{package}.")
    return below.partition(".")[0] if below != module else ""


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return one circle of a graph, empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward(package: str, layers: Iterable[str]) -> Iterator[str]:
    """Yield the imports within a package that do not go to a lower layer, and its circles of rooms."""
    level = {room: number for number, rooms in enumerate(layers) for room in rooms.split()}
    graph: dict[str, set[str]] = {}
    for module in modules():
        room = room_of(package, module)
        for other in own_imports(module) if room else ():
            used = room_of(package, other)
            if not used or used == room:
                continue
            graph.setdefault(room, set()).add(used)
            if room in level and used in level and level[used] >= level[room]:
                yield f"{module} imports {other}"
    rooms = {room_of(package, module) for module in modules()} - {""}
    yield from (f"{package}: {room} has a layer and is missing" for room in level.keys() - rooms)
    if package == "daso":
        yield from (f"{package}.{room} needs a layer" for room in rooms - level.keys())
    if found := circle(graph):
        yield f"circle of {package}: {' -> '.join(found)}"


def test_imports_go_one_way() -> None:
    violations = [text for package, layers in ORDER.items() for text in upward(package, layers)]
    assert not violations, "\n".join(violations)


def test_no_modules_import_one_another_in_a_circle() -> None:
    found = circle({module: own_imports(module) for module in modules()})
    assert not found, " -> ".join(found)


def test_parts_that_must_stay_light_import_little() -> None:
    violations = []
    for module, path in modules().items():
        where = path.relative_to(ROOT).as_posix()
        for part, allowed in ALLOWED.items():
            if where == part or where.startswith(f"{part}/"):
                parts = {room_of("daso", other) for other in own_imports(module)} - {part}
                violations += [f"{module} imports {other}" for other in sorted(parts - allowed)]
        if any(where == part or where.startswith(f"{part}/") for part in NO_TORCH):
            violations += [f"{module} imports torch"] * any(
                name.partition(".")[0] == "torch" for name in imports(module)
            )
    assert not violations, "\n".join(violations)


def test_folders_are_small_and_names_are_not_repeated() -> None:
    files = [path for path in modules().values() if path.name != "__init__.py"]
    folders = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    names = Counter(path.name for path in files)
    crowded = [f"{n} files in {folder}" for folder, n in folders.items() if n > MOST_FILES]
    assert crowded + [f"{name} {n} times" for name, n in names.items() if n > 3] == []


ANSWERS = """
import contextlib, importlib.abc, io, sys, traceback

heavy = {"torch", "numpy", "PIL", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "jinja2", "pooch", "asyncio"}

class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in heavy:
            raise RuntimeError(f"imports {name}")

sys.meta_path.insert(0, Poison())
from daso import cli
verbs = [verb.replace("data", "data check") for verb in cli.VERBS]
lines = ["--help", *(f"{verb} --help" for verb in verbs), "methods", "methods fixmatch+daso", "presets"]
for line in lines:
    if line == "presets":  # which counts images
        heavy.remove("numpy")
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            status = cli.main(line.split())
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        status = traceback.format_exc().splitlines()[-1]
    if status or not shown.getvalue():
        print(f"daso {line}: {status}")
"""


@pytest.mark.process
def test_lists_and_help_are_printed_without_heavy_packages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert not done.stdout, done.stdout


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


def test_marked_files_of_tests_exist() -> None:
    present = {path.name for path in Path(__file__).parent.rglob("test_*.py")}
    missing = {file for files in MARKS.values() for file in files} - present
    assert not missing
