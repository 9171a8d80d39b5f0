"""Parse a verb's arguments once: a dataclass describes its options, argparse finds what was given.

The result holds only the given options. The dataclass or ``daso.presets.layers`` fills in defaults
afterwards.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from daso.constraints import annotations_of, check_value, kind_of
from daso.errors import OptionError, flag, nearest

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
    options: dict[str, Option]


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
    options = {n: one for group in (own, *groups.values()) for n, one in group.options.items()}
    given = {
        name: _value(name, vars(found).get(name, []), option.annotation)
        for name, option in options.items()
        if name in found or option.required  # argparse asks for those that need a value
    }
    for name, value in given.items():
        if value is not None:
            check_value(name, value, options[name].annotation)
    return given


def options_of(kind: Any) -> dict[str, Option]:
    """Return the options of a dataclass, each described below its field."""
    annotations, texts = annotations_of(kind), descriptions(kind)
    return {
        field.name: Option(
            annotations[field.name],
            texts.get(field.name, ""),
            default_text(field.default),
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
            more = "..." if kind_of(option.annotation).several else ""
            word = f"{placeholder(option.annotation)}{more}"
            words.append(word if option.required else f"[{word}]")
    return " ".join(words)


def _wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(plain_text(part), 78) for part in text.split("\n\n"))


def _add(parser: argparse._ActionsContainer, name: str, option: Option) -> None:
    mark, kind = _mark(option.annotation), kind_of(option.annotation)
    ending = "" if re.search(r"\(default|Default:", option.help) else option.default
    text = option.help + (f" (default: {ending})" if ending else "")
    about: dict[str, Any] = {"help": text.replace("%", "%%")}
    if kind.one is bool and not kind.optional:
        parser.add_argument(flag(name), action=argparse.BooleanOptionalAction, **about)
        return
    about["metavar"] = placeholder(option.annotation)
    if mark.positional:
        nargs = "*" if kind.several else None if option.required else "?"
        parser.add_argument(name, nargs=nargs, **about)
    elif mark.repeated:
        parser.add_argument(flag(name), action="append", **about)
    else:
        parser.add_argument(flag(name), nargs="+" if kind.several else None, **about)


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _refuse(unknown: Sequence[str], parser: argparse.ArgumentParser) -> NoReturn:
    shown = ", ".join(unknown)
    if not unknown[0].startswith("--"):
        parser.error(f"{shown}: one argument too many")
    hint = nearest(unknown[0], parser._option_string_actions)
    raise OptionError(f"unknown option {shown}; '{parser.prog} --help' lists all options.{hint}")


def _mark(annotation: Any) -> Argument:
    marks = kind_of(annotation).marks
    return next((mark for mark in marks if isinstance(mark, Argument)), Argument())


def _value(name: str, given: Any, annotation: Any) -> Any:
    """Return the value of an option that was given as text, as texts, or as a flag.

    Raises:
        OptionError: the text is no value of the option's type.
    """
    kind, optional = kind_of(annotation).one, kind_of(annotation).optional
    if isinstance(given, list):
        return tuple(_value(name, text, kind) for text in given)
    if given == "None" and optional:
        return None
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
    kind = kind_of(annotation)
    choices = ("True", "False") if kind.one is bool else kind.choices
    if choices:
        return "{" + ",".join(choices) + "}"
    return _mark(annotation).metavar or PLACEHOLDERS[kind.one]


def descriptions(kind: type[Any]) -> dict[str, str]:
    """Return the description below each field of a dataclass, as one line."""
    found = {}
    statements: Any = ast.parse(inspect.getsource(kind)).body[0]
    for one, below in itertools.pairwise(statements.body):
        if isinstance(one, ast.AnnAssign) and isinstance(below, ast.Expr):
            found[ast.unparse(one.target)] = plain_text(ast.literal_eval(below.value))
    return found


def plain_text(text: str) -> str:
    """Return a description without line breaks and marks: ``code``, *argument*."""
    text = " ".join(text.split()).replace("``", "")
    return re.sub(r"(?<!\w)\*(\w+)\*", r"\1", text)
