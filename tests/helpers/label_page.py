"""The page of daso label, as a person uses it."""

from __future__ import annotations

import pytest
from browser import Visit
from label.conftest import NAMES, Served
from playwright.sync_api import Page, expect

expect.set_options(timeout=60_000)


class Labeling(Visit):
    """Pages of daso label."""

    def label(self, served: Served, width: int = 1280) -> Page:
        """Open the page and wait for its first image: until then there is nothing that a key is about."""
        page = self.open(f"{served.address}#suggested", width)
        page.wait_for_selector("body[data-ready=yes] #view .big img")
        return page


def shown_name(page: Page) -> str:
    """Return the name of the image that is to be labeled."""
    return page.locator(".big figcaption bdi").inner_text()


def truth(name: str) -> str:
    return NAMES[int(name.rsplit("-", 1)[1][0])]


def key_of(page: Page, label: str) -> str:
    return page.locator(f"#panel li[data-name='{label}'] kbd").inner_text().lower()


def label_by_keys(page: Page, count: int) -> list[str]:
    """Label images as their names say: Enter if the guess is right, else the class's key."""
    done = []
    for _ in range(count):
        name = shown_name(page)
        guess = page.locator(".actionbar .primary bdi")
        right = guess.count() and guess.inner_text() == truth(name)
        page.keyboard.press("Enter" if right else key_of(page, truth(name)))
        expect(page.locator(".big figcaption bdi")).not_to_have_text(name)
        done.append(name)
    return done


def until(page: Page, condition: str) -> None:
    """Wait for a condition in JavaScript; the page's policy forbids what Playwright has for it."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {condition}")


def settled(page: Page) -> None:
    """Wait until every decision of the page is on disk."""
    until(page, "!Object.keys(localStorage).some(key => key.startsWith('daso-label'))")
