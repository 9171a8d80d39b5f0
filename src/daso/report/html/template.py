"""Render pages from the templates: each is one file with its style, script and data."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from daso.files import plain
from daso.report import wording

MISSING = "\N{EN DASH}"
OPTION = re.compile(r"(--[a-z][\w-]*)")
LONGEST_NAME = 17
"""Longer names may take several lines."""


def percent(value: float | None) -> str:
    """Return a share in percent with one decimal, or a dash."""
    return wording.percent(value, MISSING)


def count(value: float | None) -> str:
    """Return a number of images, or a dash."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def leading_number(cell: str) -> str:
    """Return the number by which a cell such as ``"75.4 ± 3.4"`` is sorted; "" without one."""
    number = re.match(r"(?:< )?([+-]?\d+(?:\.\d+)?)", cell)
    return number[1] if number else ""


def breakable(text: str) -> Markup:
    """Return a name that may be broken between its parts, which are joined by ``+``."""
    return Markup("+<wbr>").join(text.split("+"))


def unbroken(text: str) -> Markup:
    """Return a text in which no line ends within an option such as ``--size``."""
    parts = OPTION.split(text)
    return Markup("").join(
        Markup('<span class="option">{}</span>').format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def name_width(names: Sequence[str]) -> str:
    """Return the width of a column of names."""
    return f"{min(LONGEST_NAME, max(map(len, names), default=8))}ch"


@cache
def environment() -> Environment:
    """Return the templates; all text is escaped unless it is our own markup."""
    templates = Environment(
        loader=PackageLoader("daso.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (percent, count, leading_number, breakable, name_width, unbroken):
        templates.filters[function.__name__] = function
    return templates


def island(value: Any) -> Markup:
    """Return JSON for a script element; nothing in it can end the element."""
    text = json.dumps(plain(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def render_page(
    template: str,
    scripts: Sequence[str],
    links: Sequence[tuple[str, str]],
    problems: Sequence[str],
    **values: Any,
) -> str:
    """Return a page in which only its own scripts run.

    *links* are identifier and title of each section; *problems* are shown on top.
    """
    templates = environment()
    assert templates.loader is not None
    style, theme, *parts = (
        templates.loader.get_source(templates, file)[0]
        for file in ("style.css", "theme.js", *scripts)
    )
    script = "".join(parts)
    digests = [hashlib.sha256(text.encode()).digest() for text in (theme, script)]
    return templates.get_template(template).render(
        style=Markup(style),
        theme=Markup(theme),
        script=Markup(script),
        script_hashes=Markup(
            " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        ),
        links=links,
        problems=problems,
        **values,
    )
