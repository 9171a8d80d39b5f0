"""Reports in Chromium."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from browser import Visit
from PIL import Image
from playwright.sync_api import Page

from daso.report.html.page import write_report

SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Resolved when the page has been drawn."""


@dataclass
class Reports(Visit):
    """Pages of reports, which are files.

    Attributes:
        opened: addresses of the files.
    """

    opened: set[str] = field(default_factory=set)

    def file(self, path: Path, width: int = 1400, theme: str = "light") -> Page:
        address = path.resolve().as_uri()
        self.opened.add(address)
        return self.open(address, width, theme)

    def report(self, folder: Path, width: int = 1400, theme: str = "light") -> Page:
        """Write the report of a run and open it."""
        return self.file(write_report(folder)[0], width, theme)


def brightness(page: Page) -> float:
    """Return that of the pixels in the corner, 0 to 255."""
    corner = page.screenshot(clip={"x": 4, "y": 4, "width": 4, "height": 4})
    with Image.open(io.BytesIO(corner)) as image:
        return float(np.asarray(image.convert("L"), dtype=float).mean())
