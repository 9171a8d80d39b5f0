"""How options are shown: commands are dataclasses whose fields have their descriptions below them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from daso.errors import OptionError, nearest

Command = TypeVar("Command")

PLACEHOLDERS: dict[Any, str] = {Path: "PATH", str: "TEXT", int: "NUMBER", float: "NUMBER"}


def parse(kind: type[Command], argv: Sequence[str], prog: str) -> Command:
    """Parse the arguments of a verb into its command.

    Raises:
        OptionError: the value of an option is none of its choices; the nearest one is named.
        SystemExit: help was asked for, or an option is wrong; tyro names the nearest one.
    """
    refuse_choices(get_type_hints(kind, include_extras=True), argv)
    parsed: Any = tyro.cli(shown(kind), args=list(argv), prog=prog)
    command: Command = kind(**{name: getattr(parsed, name) for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]
    return command


def shown(
    kind: type[Any],
    groups: Mapping[str, type[Any]] | None = None,
    decided: Mapping[str, str] | None = None,
) -> Any:
    """Return a dataclass like *kind* for tyro to show.

    Args:
        kind: a dataclass.
        groups: fields whose options stand beside its own, and the dataclasses that these are of.
        decided: for some fields, how help ends in place of their default.
    """
    flat: Any = tyro.conf.OmitArgPrefixes
    groups, texts = groups or {}, descriptions(kind)
    annotations: dict[str, Any] = {}
    for name, annotation in get_type_hints(kind, include_extras=True).items():
        text = texts.get(name, "")
        argument = tyro.conf.arg(
            help=text or None,
            help_behavior_hint=hint_of(text, (decided or {}).get(name)),
            metavar=placeholder(annotation),
        )
        annotations[name] = Annotated[annotation, argument]
    annotations |= {name: flat[group] for name, group in groups.items()}
    fields = {name: field(default_factory=group) for name, group in groups.items()}
    body = {"__annotations__": annotations, "__doc__": kind.__doc__, **fields}
    return dataclass(frozen=True)(type(kind.__name__, (kind,), body))


def refuse_choices(annotations: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Refuse a value that is none of its option's choices, with the nearest one; tyro would name no nearest.

    Args:
        annotations: types of the options by name.
        argv: the arguments of the verb.

    Raises:
        OptionError: there is such a value.
    """
    choices = {
        f"--{name.replace('_', '-')}": choices_of(kind) for name, kind in annotations.items()
    }
    if {"-h", "--help"} & {*argv}:
        return
    for index, argument in enumerate(argv):
        option, sign, value = argument.partition("=")
        option = option.replace("_", "-")
        valid = choices.get(option)
        if not valid:
            continue
        if not sign:
            value = argv[index + 1] if index + 1 < len(argv) else "--"
        if value not in (*valid, "None") and not value.startswith("--"):
            raise OptionError(
                f"{option} {value}: there is no such choice; there are {', '.join(valid)}.{nearest(value, valid)}"
            )


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return what an option may be: its type is a ``Literal``, perhaps with None, or a tuple of one; else ()."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        inner = (
            get_args(annotation)[:1]
            if get_origin(annotation) is Annotated
            else get_args(annotation)
        )
        kinds = [kind for kind in inner if kind not in (type(None), ...)]
        return choices_of(kinds[0]) if len(kinds) == 1 else ()
    return ()


def hint_of(text: str, decided: str | None = None) -> Any:
    """Return what help says of a default, given the description: nothing where that tells it, or there is none."""

    def hint(default: str) -> str:
        if "(default" in text or "Default:" in text:
            return ""
        if decided is not None:
            return f"(default: {decided})"
        return "" if default in ("", "''", "None", "False") else f"(default: {default})"

    return hint


def placeholder(annotation: Any) -> str | None:
    """Return what stands for the value of an option; None: what tyro shows."""
    if get_origin(annotation) is Annotated:
        if any(getattr(extra, "metavar", None) for extra in annotation.__metadata__):
            return None
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) != 1 or len(kinds) == len(get_args(annotation)):
            return None
        annotation = kinds[0]
        if get_origin(annotation) is Literal:
            return "{" + ",".join(map(str, get_args(annotation))) + "}"
        if annotation is bool:
            return "{True,False}"
    return PLACEHOLDERS.get(annotation) if isinstance(annotation, type) else None


def descriptions(kind: type[Any]) -> dict[str, str]:
    """Return what stands below each field of a dataclass, as one line."""
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
    """Return a description without its line breaks and the marks of documentation: ``code``, *argument*."""
    text = " ".join(text.split()).replace("``", "")
    return re.sub(r"(?<!\w)\*(\w+)\*", r"\1", text)
