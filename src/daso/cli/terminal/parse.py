"""Parse a verb's arguments once: a dataclass describes its options, argparse finds what was given.

The result holds only the given options. The dataclass or ``daso.presets.layers`` fills in defaults
afterwards.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from daso.constraints import Checked, check_value, choices_of
from daso.errors import OptionError, RunError, flag, nearest

Command = TypeVar("Command")

PLACEHOLDERS: dict[Any, str] = {Path: "PATH", str: "TEXT", int: "NUMBER", float: "NUMBER"}


NUMBERS = {int: "a whole number", float: "a number"}
TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Argument:
    """Marks a type, in ``Annotated``, whose option is given in another way than ``--name VALUE``.

    Attributes:
        metavar: what stands for the value in help, if not its type.
        positional: given without its name.
        repeated: given once for each value of a tuple.
    """

    metavar: str = ""
    positional: bool = False
    repeated: bool = False


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    Attributes:
        annotation: its type.
        help: its description.
        default: how help names its default; ``""``: not at all.
        required: whether it must be given.
    """

    annotation: Any
    help: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True)
class Group:
    """Options that help shows together, under a title."""

    title: str
    options: Mapping[str, Option]


def parse(kind: type[Command], argv: Sequence[str], prog: str) -> Command:
    """Parse the arguments of a verb into its command, as ``parse_given`` does."""
    return kind(**parse_given(kind, argv, prog))


def parse_given(
    kind: type[Any],
    argv: Sequence[str],
    prog: str,
    groups: Mapping[str, Group] | None = None,
    refuse_unknown: Callable[[set[str]], None] = lambda names: None,
) -> dict[str, Any]:
    """Parse the arguments of a verb and return what was given, by the option's name.

    Args:
        kind: dataclass of the verb's own options.
        groups: further options.
        refuse_unknown: called with the names of unknown options; may raise an error that explains
            them better.

    Raises:
        OptionError: an option is unknown, or a value is not valid; the nearest name is given.
        SystemExit: help was asked for.
    """
    own, groups = Group(inspect.getdoc(kind) or "", options_of(kind)), groups or {}
    parser = _parser(prog, own, groups)
    end = argv.index("--") if "--" in argv else len(argv)
    found, unknown = parser.parse_known_intermixed_args([*map(_dashed, argv[:end]), *argv[end:]])
    if unknown:
        wrong = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        refuse_unknown({word[2:].removeprefix("no-").replace("-", "_") for word in wrong})
        _refuse(wrong or unknown, parser)
    options = dict(own.options)
    for group in groups.values():
        options |= group.options
    given = {
        name: _value(name, vars(found).get(name, []), option.annotation)
        for name, option in options.items()
        if name in found or option.required  # argparse asks for those that need a value
    }
    for name, value in given.items():
        if value is not None:
            check_value(name, value, options[name].annotation)
    return given


def options_of(kind: type[Any], decided: Mapping[str, str] | None = None) -> dict[str, Option]:
    """Return the options of a dataclass, each described below its field.

    Args:
        decided: how help names the defaults of some of them.
    """
    hints, texts = get_type_hints(kind, include_extras=True), descriptions(kind)
    return {
        field.name: Option(
            hints[field.name],
            texts.get(field.name, ""),
            (decided or {}).get(field.name, default_text(field.default)),
            required=field.default is MISSING,
        )
        for field in fields(kind)
    }


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="")  # argparse does not tell that a reader has gone

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message}; '{self.prog} --help' lists all options")


def _parser(prog: str, own: Group, groups: Mapping[str, Group]) -> _Parser:
    parser = _Parser(
        prog=prog,
        usage=_usage(prog, own),
        description=_wrapped(own.title),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=26),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # -1e-3 is a value too
    for name, option in own.options.items():
        _add(parser, name, option)
    for title, group in groups.items():
        shown = parser.add_argument_group(f"{title} options", _wrapped(group.title))
        for name, option in group.options.items():
            _add(shown, name, option)
    return parser


def _usage(prog: str, own: Group) -> str:
    words = [prog, "[OPTIONS]"]
    for option in own.options.values():
        if _mark(option.annotation).positional:
            metavar = placeholder(option.annotation)
            word = f"{metavar}..." if _inner(option.annotation)[1] else f"{metavar}"
            words.append(word if option.required else f"[{word}]")
    return " ".join(words)


def _wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(plain_text(part), 78) for part in text.split("\n\n"))


def _add(parser: argparse._ActionsContainer, name: str, option: Option) -> None:
    mark, (kind, is_tuple) = _mark(option.annotation), _inner(option.annotation)
    ending = "" if re.search(r"\(default|Default:", option.help) else option.default
    text = option.help + (f" (default: {ending})" if ending else "")
    about: dict[str, Any] = {"help": text.replace("%", "%%")}
    if kind is bool and not _is_optional(option.annotation):
        parser.add_argument(flag(name), action=argparse.BooleanOptionalAction, **about)
        return
    about["metavar"] = placeholder(option.annotation)
    if mark.positional:
        nargs = "*" if is_tuple else None if option.required else "?"
        parser.add_argument(name, nargs=nargs, **about)
    elif mark.repeated:
        parser.add_argument(flag(name), action="append", **about)
    else:
        parser.add_argument(flag(name), nargs="+" if is_tuple else None, **about)


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _refuse(unknown: Sequence[str], parser: argparse.ArgumentParser) -> NoReturn:
    known = parser._option_string_actions
    shown = ", ".join(unknown)
    if not unknown[0].startswith("--"):
        parser.error(f"{shown}: one argument too many")
    raise OptionError(
        f"unknown option {shown}; '{parser.prog} --help' lists all options."
        + nearest(unknown[0], known)
    )


def _mark(annotation: Any) -> Argument:
    marks = getattr(annotation, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Argument)), Argument())


def _is_optional(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_optional(get_args(annotation)[0])
    return type(None) in get_args(annotation)


def _inner(annotation: Any) -> tuple[Any, bool]:
    """Return the type of one value, and whether the option takes several."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner(inner[0])
    if origin in (Union, types.UnionType):
        return _inner(next(kind for kind in inner if kind is not type(None)))
    if origin is tuple:
        return _inner(inner[0])[0], True
    return annotation, False


def _value(name: str, given: Any, annotation: Any) -> Any:
    """Return the value of an option that was given as text, as texts, or as a flag.

    Raises:
        OptionError: the text is no value of the option's type.
    """
    if isinstance(given, list):
        return tuple(_value(name, text, _inner(annotation)[0]) for text in given)
    if given == "None" and _is_optional(annotation):
        return None
    kind = _inner(annotation)[0]
    if kind is bool and isinstance(given, str):
        if given.lower() not in TRUTH:
            raise OptionError(f"{name} = {given!r} ({flag(name)}): must be True or False")
        return TRUTH[given.lower()]
    try:
        return kind(given) if kind in (int, float, Path) else given
    except ValueError:
        raise OptionError(f"{name} = {given!r} ({flag(name)}): must be {NUMBERS[kind]}") from None


def default_text(default: Any) -> str:
    """Return a default as help names it; ``""`` if it says nothing."""
    if default in (MISSING, "", None, False, ()):
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def placeholder(annotation: Any) -> str:
    """Return what stands for an option's value in help."""
    kind, _ = _inner(annotation)
    choices = ("True", "False") if kind is bool else choices_of(annotation)
    if choices:
        return "{" + ",".join(choices) + "}"
    return _mark(annotation).metavar or PLACEHOLDERS[kind]


def descriptions(kind: type[Any]) -> dict[str, str]:
    """Return the description below each field of a dataclass, as one line."""
    source = Path(str(sys.modules[kind.__module__].__file__)).read_text(encoding="utf-8")
    tree = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    found = {}
    for one, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[one.target.id] = plain_text(str(below.value.value))
    return found


def plain_text(text: str) -> str:
    """Return a description without line breaks and marks: ``code``, *argument*."""
    text = " ".join(text.split()).replace("``", "")
    return re.sub(r"(?<!\w)\*(\w+)\*", r"\1", text)


def check_run_folder(name: str, folder: Path) -> None:
    """Refuse a folder without a configuration.

    Raises:
        RunError: it is not a run folder.
    """
    if not (folder / "config.json").exists():
        reason = "it has no config.json" if folder.exists() else "it does not exist"
        raise RunError(f"{folder} is not a run folder: {reason}")


RunArgument = Annotated[Path, Argument("RUN", positional=True), Checked(check_run_folder)]
