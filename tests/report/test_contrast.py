"""Contrast of the style sheet, by the Web Content Accessibility Guidelines 2.1."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("daso.report.html").joinpath("templates/style.css").read_text(encoding="utf-8")
BLOCKS = [
    dict(re.findall(r"--([\w-]+): ([^;]+);", block))
    for block in re.findall(r":root[^{]*\{([^{}]*--page[^}]*)\}", STYLE)
]
LIGHT, DARK, CHOSEN_DARK = BLOCKS
GROUNDS = ("page", "card", "wash", "warn")

Color = tuple[float, float, float]


def rgb(text: str) -> Color:
    digits = text.strip().lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def luminance(color: Color) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_on_known_pairs() -> None:
    assert contrast(rgb("#000"), rgb("#fff")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.005)


def test_dark_is_the_same_whether_the_system_or_the_reader_chose_it() -> None:
    assert DARK == CHOSEN_DARK
    assert LIGHT.keys() == DARK.keys()


def test_text_has_enough_contrast_and_so_have_marks_and_controls() -> None:
    for theme in (LIGHT, DARK):
        for ground in GROUNDS:
            for ink in ("ink", "soft", "accent"):
                assert contrast(rgb(theme[ink]), rgb(theme[ground])) >= 4.5, (ink, ground)
        for ink in ("accent", "ink"):  # the gallery that is chosen, and what is said of a mark
            assert contrast(rgb(theme["page"]), rgb(theme[ink])) >= 4.5, ink
        marks = [
            "labeled",
            "linear",
            "semantic",
            "final",
            "adjusted",
            "truth",
            "over",
            "under",
            "edge",
            "accent",
        ]
        for mark in (*marks, *(f"m{number}" for number in range(6))):
            for ground in ("page", "card"):
                assert contrast(rgb(theme[mark]), rgb(theme[ground])) >= 3, (mark, ground)


def test_numbers_of_the_confusion_matrix_can_be_read_in_every_shade() -> None:
    for theme in (LIGHT, DARK):
        ink, card, full = (rgb(theme[name]) for name in ("ink", "card", "cell"))
        for percent in range(101):
            share = percent / 100
            red, green, blue = (
                share * a + (1 - share) * b for a, b in zip(full, card, strict=True)
            )
            assert contrast(ink, (red, green, blue)) >= 4.5, percent
