"""Pages in Chromium: what opens them, what goes wrong in them, and whether everyone can use them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
FLAGS = ["--no-sandbox", "--disable-gpu"]
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a running browser."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@dataclass
class Visit:
    """What pages of one browser did while a test looked at them.

    Attributes:
        errors: console errors and uncaught exceptions.
        requests: addresses requested, except data addresses.
    """

    browser: Browser
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, address: str, width: int = 1400, theme: str = "light") -> Page:
        """Open an address in a window of some width, for a system with a light or dark theme."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 900},
            is_mobile=width < 600,
            color_scheme=theme,
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine takes its time
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        page.on("request", lambda asked: self._note(asked.url))
        page.goto(address)
        return page

    def _note(self, address: str) -> None:
        if not address.startswith("data:"):
            self.requests.append(address)

    def close(self) -> None:
        for context in self.browser.contexts:
            context.close()


def inaccessible(page: Page) -> list[str]:
    """Return what breaks the Web Content Accessibility Guidelines: the rule and the element."""
    page.evaluate(AXE)
    # The links of the views are addresses of the page itself; axe takes one that is out of sight
    # for a link that skips to an element.
    rules = {"skip-link": {"enabled": False}}
    options = {"resultTypes": ["violations"], "rules": rules}
    found = page.evaluate("options => axe.run(options)", options)["violations"]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]
