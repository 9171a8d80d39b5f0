"""Contrast of the labeling page's style sheet, by the Web Content Accessibility Guidelines 2.1."""

from __future__ import annotations

import re
from importlib.resources import files

from report.test_contrast import Color, contrast, rgb

PAGE = files("daso.label.web.page")
SHEETS = "".join(
    PAGE.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "views.css")
)
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): ([^;]+);", block))
    for block in re.findall(r":root \{([^{}]*--page[^}]*)\}", SHEETS)
)
COLORS = re.compile(r"(?<![\w-])(color|background|fill):\s*var\(--([\w-]+)\)")
TEXT_GROUNDS = {
    "ink": ("page", "card", "wash", "accent-wash", "good-wash", "bad-wash", "warn"),
    "soft": ("page", "card", "wash", "accent-wash"),
    "accent": ("page", "card", "accent-wash", "wash"),
    "good": ("page", "card", "good-wash"),
    "bad": ("page", "card", "bad-wash"),
    "rare": ("card", "wash", "warn"),
    "on-accent": ("accent",),
    "page": ("ink",),
    "card": ("bad", "accent"),
}
"""Colors of text, and those that it stands on."""
MARK_GROUNDS = {
    "accent": ("page", "card", "wash"),
    "edge": ("page", "card"),
    "good": ("card",),
    "bad": ("card", "bad-wash"),
}
"""Colors of borders and marks that are needed to use the page. Rarity is also a star and a word."""


def mixed(over: Color, under: Color, share: float) -> Color:
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(over, under, strict=True))
    return red, green, blue


def test_text_can_be_read_and_marks_be_seen() -> None:
    for theme in (LIGHT, DARK):
        for least, pairs in ((4.5, TEXT_GROUNDS), (3.0, MARK_GROUNDS)):
            for name, grounds in pairs.items():
                for ground in grounds:
                    found = contrast(rgb(theme[name]), rgb(theme[ground]))
                    assert found >= least, (name, ground, round(found, 2))
        # Keys on a filled button: white, thinly, over the accent.
        cap = mixed((1.0, 1.0, 1.0), rgb(theme["accent"]), 0.16)
        assert contrast(rgb(theme["on-accent"]), cap) >= 4.5


def test_every_pair_of_the_sheets_is_among_those_that_are_checked() -> None:
    assert LIGHT.keys() >= DARK.keys()
    unknown = []
    for rule in re.findall(r"\{([^{}]*)\}", SHEETS):
        used = dict(COLORS.findall(rule))
        text, ground = used.get("color"), used.get("background")
        if text and text not in TEXT_GROUNDS:
            unknown.append(text)
        if text and ground and ground not in TEXT_GROUNDS.get(text, ()):
            unknown.append(f"{text} on {ground}")
    assert unknown == []
    literal = re.findall(r"(?<![\w-])color:\s*(#\w+|rgb\()", SHEETS)
    assert literal == []
