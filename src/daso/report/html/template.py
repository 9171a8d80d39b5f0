"""Pages from the templates: each is one file, with its style, its script and its data in it."""

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
from markupsafe import Markup

from daso.files import plain

MISSING = "\N{EN DASH}"


def percent(value: float | None) -> str:
    """Return a share as a number of percent, one digit behind the point."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def count(value: float | None) -> str:
    """Return a number of images."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def leading_number(cell: str) -> str:
    """Return the number that a cell such as ``"75.4 ± 3.4"`` is sorted by; "" where it holds none."""
    found = re.match(r"(?:< )?([+-]?\d+(?:\.\d+)?)", cell)
    return found[1] if found else ""


def breakable(text: str) -> Markup:
    """Return a name that may be broken between its parts, which are joined by ``+``."""
    return Markup("+<wbr>").join(text.split("+"))


def name_width(names: Sequence[str]) -> str:
    """Return the width of a column of names: the longest stands on one line unless it has more than 17 characters."""
    return f"{min(17, max(map(len, names), default=8))}ch"


@cache
def environment() -> Environment:
    """Return the templates; every text is escaped unless it is markup of our own."""
    loaded = Environment(
        loader=PackageLoader("daso.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loaded.filters |= {
        "percent": percent,
        "count": count,
        "leading_number": leading_number,
        "breakable": breakable,
        "name_width": name_width,
    }
    return loaded


def island(value: Any) -> Markup:
    """Return JSON that may stand inside a script element: nothing in it can end the element."""
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
    """Return a page, in which no other script than its own runs.

    Args:
        template: name of its file.
        scripts: files that make up its script, in order.
        links: identifier and title of each section that the navigation names.
        problems: sentences on what is missing, which stand on top.
        values: what else the template asks for.
    """
    loader = environment().loader
    assert loader is not None
    style, *parts = (loader.get_source(environment(), file)[0] for file in ("style.css", *scripts))
    script = "".join(parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment()
        .get_template(template)
        .render(
            style=Markup(style),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            links=links,
            problems=problems,
            **values,
        )
    )
