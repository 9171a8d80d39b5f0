"""The page that compares runs in Chromium: sorting, keys, themes and narrow screens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import NEEDS_CHROMIUM, inaccessible
from playwright.sync_api import Page
from report_visit import SETTLED, Reports, brightness

from daso.cli import main

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def comparison(finished_run: Path, finished_supervised_run: Path, tmp_path: Path) -> Path:
    """Return the page that compares two runs, as the command writes it."""
    runs = [str(finished_run), str(finished_supervised_run)]
    assert main(["compare", *runs, "--out", str(tmp_path / "compared")]) == 0
    return tmp_path / "compared" / "comparison.html"


def use_a_comparison(visit: Reports, comparison: Path, width: int, theme: str) -> Page:
    page = visit.file(comparison, width, theme)
    assert (brightness(page) > 128) == (theme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    links = page.evaluate(
        "[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))"
    )
    assert links == [True] * 4
    table = "document.querySelector('#setting-1-classes table')"
    cells = f"[...{table}.tBodies[0].rows].map(row => parseFloat(row.cells[2].textContent))"
    page.evaluate(f"{table}.tHead.rows[0].cells[2].querySelector('button').focus()")
    page.keyboard.press("Enter")
    assert page.evaluate(cells) == sorted(page.evaluate(cells), reverse=True)
    page.keyboard.press("Enter")
    assert page.evaluate(cells) == sorted(page.evaluate(cells))
    page.evaluate("document.getElementById('theme').click()")
    page.evaluate(SETTLED)
    assert (brightness(page) > 128) == (theme == "dark")
    return page


def test_a_comparison_opens_sorts_and_fits(visit: Reports, comparison: Path) -> None:
    assert inaccessible(use_a_comparison(visit, comparison, 1400, "light")) == []
    page = use_a_comparison(visit, comparison, 320, "dark")
    # Names of methods break only between their parts.
    lines = page.evaluate(
        """[...document.querySelectorAll('thead button')].map(button => {
          const range = document.createRange(), lines = new Map();
          const walk = document.createTreeWalker(button, NodeFilter.SHOW_TEXT);
          while (walk.nextNode()) for (let i = 0; i < walk.currentNode.length; i++) {
            range.setStart(walk.currentNode, i); range.setEnd(walk.currentNode, i + 1);
            const top = Math.round(range.getBoundingClientRect().top);
            lines.set(top, (lines.get(top) || '') + range.toString());
          }
          return [...lines.values()].map(line => line.trim()).filter(line => line);
        })"""
    )
    words = {word for line in lines for part in line for word in re.split(r"[\s+:]+", part) if word}
    assert {"fixmatch", "daso", "supervised", "difference", "accuracy"} <= words
    assert not any("fixmatch".startswith(word) and word != "fixmatch" for word in words)
