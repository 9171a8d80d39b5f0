"""The views of the page of daso label in Chromium: grids, search, keys, themes, narrow and wide windows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_CHROMIUM, inaccessible
from label.conftest import Served
from label_page import Labeling, key_of, label_by_keys, settled, shown_name
from PIL import Image
from playwright.sync_api import expect

pytestmark = NEEDS_CHROMIUM


def test_a_grid_is_used_by_keys_and_by_mouse(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    page.keyboard.press("g")
    tiles = page.locator(".grid .tile")
    expect(tiles.first).to_be_focused()
    images = [int(str(tile.get_attribute("data-image"))) for tile in tiles.all()]
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    tiles.nth(4).click(modifiers=["Shift"])
    expect(page.locator(".tile.marked")).to_have_count(5)
    page.keyboard.press("n")
    settled(page)
    names = [served.session.images.name(image) for image in images]
    assert {name: served.labels.get(name, "") for name in names[:6]} == dict.fromkeys(names[:5]) | {
        names[5]: ""
    }
    for _ in range(5):
        page.keyboard.press("u")
    settled(page)
    assert not set(served.labels) & set(names)


def test_more_like_this_and_check_labels(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    wrong = sorted((photos / "labeled" / "zero").iterdir())[0]
    shutil.move(wrong, photos / "labeled" / "one" / wrong.name)  # a zero among the ones
    served = serve(photos)
    page = visit.label(served)
    page.keyboard.press("f")
    expect(page.locator(".query figure img")).to_be_visible()
    expect(page.locator(".grid .tile").first).to_be_focused()
    free = page.locator(".tile:not(.decided)")
    chosen = [int(str(free.nth(place).get_attribute("data-image"))) for place in (0, 2)]
    free.nth(0).click()
    free.nth(2).click()
    page.keyboard.press(key_of(page, "three"))
    settled(page)
    assert served.labels == {served.session.images.name(image): "three" for image in chosen}
    for _ in chosen:
        page.keyboard.press("u")
    page.keyboard.press("Alt+4")
    expect(page.locator(".versus")).to_be_visible()
    seen = []
    while not seen or seen[-1] != f"labeled/one/{wrong.name}":
        seen.append(shown_name(page))
        if seen[-1] != f"labeled/one/{wrong.name}":
            page.keyboard.press("Enter")  # keep
            expect(page.locator(".big figcaption bdi")).not_to_have_text(seen[-1])
    page.keyboard.press(key_of(page, "zero"))
    settled(page)
    assert served.labels[seen[-1]] == "zero"
    assert all(served.labels[name] == name.split("/")[1] for name in seen[:-1])


def test_what_was_clicked_away_stays_so_after_an_undo(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos)
    page = visit.label(served)
    label_by_keys(page, 2)
    settled(page)
    page.keyboard.press("Alt+2")
    wrong = page.locator(".grid .tile").nth(1)
    expect(wrong).to_be_visible()
    image = wrong.get_attribute("data-image")
    wrong.click()
    with page.expect_response("**/believed?*"):
        page.keyboard.press("u")
    settled(page)
    assert len(served.labels) == 1
    marked = page.locator(f'.grid .tile[data-image="{image}"]')
    expect(marked).to_have_accessible_name(re.compile(", wrong$"))
    expect(page.locator(".grid .tile.marked")).to_have_count(1)


def test_hundreds_of_classes_are_searched(
    visit: Labeling, serve: Callable[..., Served], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for number in range(300):
        label = f"species {number:03}" if number else f"0 a name of {'many ' * 20}words"
        path = tmp_path / "many" / "labeled" / label / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    (tmp_path / "many" / "unlabeled").mkdir()
    for number in range(5):
        Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(
            tmp_path / "many" / "unlabeled" / f"u{number}.png"
        )
    served = serve(tmp_path / "many")
    page = visit.label(served)
    name = shown_name(page)
    page.keyboard.press("/")
    page.keyboard.type("species 27")
    expect(page.locator("#panel li:visible")).to_have_count(10)
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    settled(page)
    assert served.labels == {name: "species 273"}
    assert page.locator(".classes").evaluate("list => list.scrollWidth - list.clientWidth") == 0


def test_an_address_with_an_odd_end_opens_a_view(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    for end, told in (
        ("similar/%E0%A4%A", "Start from an image"),
        ("confirm/%", "Is this all"),
        ("__proto__", "What is this?"),
        ("toString", "What is this?"),
    ):
        page.evaluate("end => (location.hash = end)", end)
        expect(page.locator("#view h2")).to_contain_text(told)


VIEWS = {
    "suggested": ".big img",
    "confirm": ".grid .tile",
    "similar/3": ".query + .grid .tile",
    "check": ".versus, .state .mark.check",
    "progress": ".bars li",
    "train": "#train-start",
}
"""Views, and what each shows when it has heard from the server."""


@pytest.mark.parametrize("windows", [[(390, "light")], [(1280, "dark"), (2560, "light")]])
def test_every_view_fits_is_accessible_and_follows_the_theme(
    visit: Labeling, served: Served, windows: list[tuple[int, str]]
) -> None:
    page = visit.label(served, width=windows[0][0])
    backgrounds = set()
    for view, shown in VIEWS.items():
        page.evaluate(f"location.hash = {view!r}")
        expect(
            page.locator(f"body[data-view={view.split('/')[0]}]").locator(shown).first
        ).to_be_visible()
        for width, theme in windows:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            assert inaccessible(page) == [], view
            if width < 860 and (panel := page.locator("#panel").bounding_box()):
                assert panel["y"] + panel["height"] == 900, view  # within reach of a thumb
            color = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(color.split("(")[1].split(",")[0]) > 128) == (theme == "light")
            backgrounds.add(color)
    assert len(backgrounds) == len(windows)


def test_keys_alone_reach_everything_and_the_focus_is_seen(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    page.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        at, style = page.evaluate(
            "(e => [e.innerText || e.id, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        seen.append(at)
        assert style != "none" or page.evaluate("document.activeElement === document.body"), at
    text = "\n".join(map(str, seen))
    for wanted in ("Suggested", "Progress", "Train again", "Skip", "None of these", "New class"):
        assert wanted in text


def test_controls_say_what_they_do_and_by_which_key(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    guess = page.locator(".actionbar .primary bdi").inner_text()
    tree = page.locator("body").aria_snapshot()
    for wanted in (f"{guess}: confirm the guess", "None of these", "2 labels, rare", "5 in all"):
        assert wanted in tree
    keys = "buttons => buttons.map(button => button.ariaKeyShortcuts)"
    assert page.locator(".actionbar button").evaluate_all(keys) == ["Enter", *"SNFU"]
    page.locator("[data-to=confirm]").click()
    expect(page.locator("#said")).not_to_be_empty()
    page.locator("[data-to=progress]").click()
    expect(page.locator("#said")).to_be_empty()
