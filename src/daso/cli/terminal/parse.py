"""Parse a verb's arguments once: a dataclass describes its options, tyro parses what was given.

tyro gets a ``TypedDict`` whose keys may be missing, so its result holds only the given options.
The dataclass or ``daso.presets.layers`` fills in defaults afterwards.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    Required,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from daso.constraints import Checked, check_value, choices_of
from daso.errors import RunError

Command = TypeVar("Command")

PLACEHOLDERS: dict[Any, str] = {Path: "PATH", str: "TEXT", int: "NUMBER", float: "NUMBER"}


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
            them better than tyro does.

    Raises:
        OptionError: a value is not one of its option's choices; the nearest one is named.
        SystemExit: help was asked for, or an option is wrong; tyro names the nearest one.
    """
    own, groups = Group(inspect.getdoc(kind) or "", options_of(kind)), groups or {}
    flat: Any = tyro.conf.OmitArgPrefixes
    shape = _typed_dict(own, {name: flat[_typed_dict(group)] for name, group in groups.items()})
    # tyro cannot append to a tuple that has no default.
    empty = {field.name: () for field in fields(kind) if field.default == ()}
    call = partial(tyro.cli, shape, args=list(argv), prog=prog, default=empty)
    parsed, unknown = call(return_unknown_args=True)
    if unknown:
        refuse_unknown({_name(word) for word in unknown if word.startswith("--")})
        call()  # names the nearest options, and exits
    given = {n: v for n, v in parsed.items() if n not in groups and (n not in empty or v != ())}
    options = dict(own.options)
    for name, group in groups.items():
        given |= parsed.get(name, {})
        options |= group.options
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


def _typed_dict(group: Group, nested: Mapping[str, Any] | None = None) -> Any:
    annotations: dict[str, Any] = dict(nested or {})
    for name, option in group.options.items():
        ending = "" if re.search(r"\(default|Default:", option.help) else option.default
        argument = tyro.conf.arg(
            help=option.help or None,
            help_behavior_hint=ending and f"(default: {ending})",
            metavar=placeholder(option.annotation),
        )
        kind: Any = Annotated[_unchecked(option.annotation), argument]
        annotations[name] = Required[kind] if option.required else kind
    shape: Any = TypedDict("Options", annotations, total=False)  # type: ignore[misc]
    shape.__doc__ = group.title
    return shape


def _unchecked(annotation: Any) -> Any:
    """Return a type with its choices as plain text, which ``parse_given`` checks."""
    if choices_of(annotation) and get_origin(annotation) is Literal:
        return str
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return Annotated[(_unchecked(inner), *marks)]
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(_unchecked(kind) for kind in get_args(annotation))]  # noqa: UP007
    if get_origin(annotation) is tuple:
        return tuple[tuple(_unchecked(kind) for kind in get_args(annotation))]  # type: ignore[misc]
    return annotation


def _name(word: str) -> str:
    return word.partition("=")[0][2:].removeprefix("no-").replace("-", "_")


def default_text(default: Any) -> str:
    """Return a default as help names it; ``""`` if it says nothing."""
    if default in (MISSING, "", None, False, ()):
        return ""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def placeholder(annotation: Any) -> str | None:
    """Return what stands for an option's value in help; None: what tyro shows."""
    if any(getattr(mark, "metavar", None) for mark in getattr(annotation, "__metadata__", ())):
        return None
    if choices := choices_of(annotation):
        return "{" + ",".join(choices) + "}"
    if get_origin(annotation) is Annotated:
        return placeholder(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if kinds == [bool]:
            return "{True,False}"
        return placeholder(kinds[0]) if len(kinds) == 1 else None
    return PLACEHOLDERS.get(annotation) if isinstance(annotation, type) else None


def descriptions(kind: type[Any]) -> dict[str, str]:
    """Return the description below each field of a dataclass, as one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
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


RunArgument = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN"), Checked(check_run_folder)
]
