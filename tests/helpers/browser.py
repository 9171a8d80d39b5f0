"""Pages in Chromium: what opens them, what goes wrong in them, and what a screen reader finds without a name."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
FLAGS = ["--no-sandbox", "--disable-gpu"]


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


def announced(page: Page, roles: Sequence[str]) -> list[tuple[str, str]]:
    """Return role and name of what a screen reader would announce in some roles."""
    session = page.context.new_cdp_session(page)
    session.send("Accessibility.enable")
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node["name"]["value"].strip())
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]
