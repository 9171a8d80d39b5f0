"""Change the core by one operator, constant or argument at a time, and count the changes that its tests notice.

    python tests/mutations.py --count 80 --seed 0
    python tests/mutations.py --only refine/daso.py:151:0

A mutation that survives is equivalent, or a test is missing. No file is changed: for each mutation a
forked process compiles the mutated module and runs the tests next to it until the first failure.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.machinery
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

NEAREST = {
    "losses": ["tests/losses", "tests/methods/test_every_method.py"],
    "refine": ["tests/refine", "tests/methods"],
    "terms": ["tests/terms", "tests/methods/test_every_method.py"],
    "methods": ["tests/methods"],
    "plans": ["tests/plans"],
    "readout": ["tests/readout"],
    "evaluate": ["tests/evaluate"],
}
LEFT_OUT = "not one_graph and not real_training and not short_training"
"""Tests that compare a compiled step with the plain one, which are mutated alike, and trainings."""
WARM = ["numpy", "torch._dynamo", "sklearn.datasets", "PIL.Image", "safetensors.torch", "pytest"]
REPLACED = """Add>Sub Sub>Add Mult>Div Div>Mult FloorDiv>Mult Mod>FloorDiv Pow>Mult MatMult>Mult
BitAnd>BitOr BitOr>BitAnd Lt>LtE LtE>Lt Gt>GtE GtE>Gt Eq>NotEq NotEq>Eq And>Or Or>And"""
OPERATORS = {pair.partition(">")[0]: pair.partition(">")[2] for pair in REPLACED.split()}
DROPPED_CALLS = "detach clamp float double mean softmax log_softmax log t floor cpu"


def other(operator: ast.AST) -> Any:
    return getattr(ast, OPERATORS[type(operator).__name__])()


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node."""
    match node:
        case ast.BinOp(left, operator, right) if type(operator).__name__ in OPERATORS:
            yield ast.BinOp(left, other(operator), right)
            if isinstance(operator, ast.Add | ast.Sub | ast.Mult):
                yield left
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(other(operator), values)
        case ast.Compare(left, [operator, *more], right) if type(operator).__name__ in OPERATORS:
            yield ast.Compare(left, [other(operator), *more], right)
            yield ast.Constant(True)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1 if value < 1 else value * 2)
        case ast.Call(function, arguments, keywords):
            if len(arguments) > 1 and not any(isinstance(a, ast.Starred) for a in arguments[:2]):
                swapped = [arguments[1], arguments[0], *arguments[2:]]
                yield ast.Call(function, swapped, keywords)
            if isinstance(function, ast.Attribute) and function.attr in DROPPED_CALLS.split():
                yield function.value
        case ast.AugAssign():
            yield ast.Pass()


def places(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield (parent, field, index, node) of all code below a node, but annotations and errors."""
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list") or isinstance(parent, ast.Raise):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST):
                yield parent, field, index if isinstance(value, list) else None, node
                yield from places(node)


def mutations(root: Path) -> dict[str, tuple[Path, int, int]]:
    """Return by name the file, the number of the place and the number of the variant of each mutation."""
    return {
        f"{part}/{path.name}:{number}:{variant}": (path, number, variant)
        for part in NEAREST
        for path in sorted((root / "src/daso" / part).glob("*.py"))
        for number, place in enumerate(places(ast.parse(path.read_text())))
        for variant, _ in enumerate(variants(place[-1]))
    }


def mutate(path: Path, number: int, variant: int) -> tuple[ast.Module, str]:
    """Return a module's mutated tree, and what was changed in words."""
    tree = ast.parse(path.read_text())
    parent, field, index, node = list(places(tree))[number]
    new = list(variants(copy.deepcopy(node)))[variant]
    words = f"{path.name}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}  ->  {ast.unparse(new)}"
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    return ast.fix_missing_locations(tree), words


def passes(path: Path, tree: ast.Module | None, tests: list[str]) -> bool:
    """Run tests in a process of their own, with *tree* in the place of a module's code, if given."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    plain = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: Any, name: str) -> CodeType | None:
        mutated = tree is not None and self.path == str(path)
        return compile(tree, str(path), "exec") if mutated else plain(self, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "-k", LEFT_OUT]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        os._exit(bool(sys.modules["pytest"].main([*options, *tests])))


def main() -> None:
    """Run the sample and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="repository")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of mutations")
    options = parser.parse_args()
    root = options.root.resolve()
    os.chdir(root)
    sys.path[:0] = [str(root / "src"), str(root)]
    for name in WARM:
        importlib.import_module(name)
    every = mutations(root)
    names = options.only or sorted(random.Random(options.seed).sample(sorted(every), options.count))
    for part in sorted({name.partition("/")[0] for name in names}):
        assert passes(Path(), None, NEAREST[part]), f"{part}: tests fail without a mutation"
    survivors = 0
    for number, name in enumerate(names, 1):
        path, *place = every[name]
        tree, words = mutate(path, *place)
        survived = passes(path, tree, NEAREST[name.partition("/")[0]])
        survivors += survived
        print(number, "SURVIVED" if survived else "killed", name, words, flush=True)
    print(f"{len(names) - survivors} of {len(names)} killed; {len(every)} mutations in all")


if __name__ == "__main__":
    main()
