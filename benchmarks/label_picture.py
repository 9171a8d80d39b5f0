"""Make ``docs/label.png``: the page of ``daso label`` on photographs of solar cells.

The cells are those of ``pip install elpv-dataset``; Chromium is driven by Playwright. A few cells
are labeled by keys, as their experts judged them, before the picture is taken.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from common import daso_command
from elpv import load_cells
from PIL import Image
from playwright.sync_api import Page, sync_playwright

NAMES = ("sound", "some cracks", "likely defective", "defective")
LABELED, POOL = (12, 5, 2, 6), 900
WIDTH, HEIGHT = 1280, 860
COLORS = 256
"""Colors of the picture, which keep it small."""


def write_cells(folder: Path) -> dict[str, str]:
    """Write labeled/ and unlabeled/; return the classes of the unlabeled files by name."""
    photos, classes, kinds = load_cells()
    order = np.random.default_rng(0).permutation(np.flatnonzero(kinds == "poly"))[:POOL]
    left = list(LABELED)
    truth = {}
    for row in order:
        k = classes[row]
        part = f"labeled/{NAMES[k]}" if left[k] else "unlabeled"
        left[k] -= bool(left[k])
        path = folder / part / f"cell{row:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[row]).save(path)
        truth[path.name] = NAMES[k]
    return truth


def label(page: Page, truth: dict[str, str]) -> None:
    """Label the shown image as the experts did, by the key of its class."""
    shown = page.locator(".big figcaption bdi").inner_text()
    button = page.locator("#panel li").filter(
        has=page.get_by_text(truth[Path(shown).name], exact=True)
    )
    page.keyboard.press(button.locator("kbd").inner_text())
    page.get_by_text(shown).wait_for(state="detached")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/label.png"))
    parser.add_argument("--labels", type=int, default=12)
    parser.add_argument("--theme", default="light", choices=("light", "dark"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        truth = write_cells(Path(place) / "cells")
        command = daso_command("label", "cells", "--no-open", "--port", 0)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=place) as server:
            assert server.stderr is not None
            address = next(
                line.split()[1] for line in server.stderr if line.startswith("open http")
            )
            chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=options.theme
            )
            page.set_default_timeout(120_000)
            page.goto(address)
            page.locator(".big .main").wait_for()
            for _ in range(options.labels):
                label(page, truth)
            page.wait_for_timeout(3_000)
            picture = Path(place) / "label.png"
            page.screenshot(path=picture)
            browser.close()
            server.terminate()
        with Image.open(picture) as image:
            image.convert("RGB").quantize(COLORS).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
