"""What a screen reader is told by the page of daso label, and where the focus is, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from browser import NEEDS_CHROMIUM
from label.conftest import Served
from label_page import Labeling, key_of, settled, shown_name
from playwright.sync_api import Page, Route, expect
from ports import free_port

pytestmark = NEEDS_CHROMIUM
COUNT_READ = """
document.body.dataset.read = 0;
document.querySelector(".grid").addEventListener("focusin", () => document.body.dataset.read++);
"""
"""Counts how often a tile gets the focus, and is read."""
IMAGE = ".big [role=listbox] > [role=option]"


def test_one_message_says_what_was_done_and_what_comes(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    page = visit.label(serve(photos))
    image, said = page.locator(IMAGE), page.locator("#said")
    expect(image).to_be_focused()
    element = image.element_handle()
    for key, done in (("s", "1 image skipped"), ("n", "of none of these"), ("1", "labeled four")):
        name = shown_name(page)
        page.keyboard.press(key)
        expect(page.locator(".big figcaption bdi")).not_to_have_text(name)
        for told in (done, "Guess: ", f"{shown_name(page)}."):
            expect(said).to_contain_text(told)
        expect(image).to_have_attribute("aria-label", str(said.inner_text()).split(". ", 1)[1])
        assert element.evaluate("element => element === document.activeElement")
    page.locator(".beliefs button").last.focus()
    page.keyboard.press("Enter")  # the button goes with its image
    expect(image).to_be_focused()
    page.get_by_role("toolbar").get_by_role("button", name="Skip").focus()
    page.keyboard.press("Enter")
    expect(image).to_be_focused()
    settled(page)


def _focused(page: Page, label: str) -> None:
    expect(page.locator("#view:focus, #view :focus").first).to_be_visible()
    expect(page.get_by_role("main", name=label)).to_be_visible()


def test_the_focus_goes_along_to_every_view(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    names = ("Suggested", "Confirm a class", "More like this", "Check labels", "Progress")
    for view, label in reversed(list(enumerate(names, 1))):
        for keys in ([f"Alt+{view}"], ["v", str(view)]):
            page.keyboard.press("Alt+2" if label != "Confirm a class" else "Alt+1")
            for key in keys:
                page.keyboard.press(key)
            _focused(page, label)
    # Two keys before the browser has gone to the first one's view.
    page.evaluate(
        "for (const key of '21')"
        " document.body.dispatchEvent("
        "new KeyboardEvent('keydown', { key, altKey: true, bubbles: true }))"
    )
    assert page.evaluate("location.hash") == "#suggested"
    page.locator("[data-to=confirm]").focus()
    page.keyboard.press("Enter")
    tile = page.locator(".grid .tile").first
    expect(tile).to_be_focused()
    grid = page.get_by_role("listbox", name="select what is something else")
    expect(grid).to_be_visible()
    for back in ("Alt+2", "Enter"):
        page.locator(".skip" if back == "Enter" else "[data-to=check]").focus()
        page.keyboard.press(back)
        expect(tile).to_be_focused()
        assert page.evaluate("location.hash") == "#confirm"


def test_a_grid_says_what_was_done(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    page = visit.label(serve(photos))
    page.keyboard.press("g")
    tile = page.locator(".tile:focus")
    expect(tile).to_be_visible()
    image = tile.get_attribute("data-image")
    page.keyboard.press("n")
    expect(page.locator("#said")).to_have_text("1 image of none of these classes.")
    expect(tile).not_to_have_attribute("data-image", str(image))
    page.keyboard.press("f")
    expect(page.locator("#said")).to_contain_text("images like")
    page.locator(".tile:not(.decided)").first.focus()
    with page.expect_response("**/similar?*"):
        page.keyboard.press(key_of(page, "three"))
    expect(page.locator(".tile:focus")).to_be_visible()
    expect(page.locator("#said")).to_have_text("1 image labeled three.")
    page.keyboard.press("v")
    page.keyboard.press("2")
    expect(page.locator("#said")).to_contain_text("believed to be")
    page.keyboard.press(key_of(page, "one"))
    expect(page.locator("#said")).to_have_text("1 image labeled one.")
    settled(page)


def test_dialogs_and_the_search_can_be_heard(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    said = page.locator("#said")
    expect(page.locator(IMAGE)).to_be_focused()
    page.keyboard.press("Alt+2")
    expect(said).not_to_be_empty()
    page.keyboard.press("Alt+1")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("list")).to_be_focused()
    tree = dialog.aria_snapshot()
    assert "S skip" in tree
    assert "V 1" in tree
    expect(said).to_be_empty()  # it would be said again when the dialog closes
    page.keyboard.press("Escape")
    expect(page.locator(IMAGE)).to_be_focused()
    page.keyboard.press("+")
    field = page.get_by_role("textbox", name="Its name")
    expect(field).to_have_accessible_description(
        "It is given to the image that you are looking at."
    )
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#toasts")).to_contain_text("more than 12")
    assert page.locator("#panel [role=status]").count() == 0


def test_the_search_says_what_enter_takes(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos)
    for number in range(20, 28):
        served.session.add_class(f"species {number}", f"action {number}")
    page = visit.label(served)
    page.keyboard.press("/")
    page.keyboard.type("species 2")
    expect(page.locator("#said")).to_have_text("8 of 13; Enter: species 20")
    page.keyboard.press("Escape")
    expect(page.locator(IMAGE)).to_be_focused()


def test_a_server_that_is_gone_is_said_once(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos, port=free_port())
    page = visit.label(served)
    said, banner = page.locator("#said"), page.locator("#banner")
    served.stop()
    expect(said).to_contain_text("does not answer")
    title = banner.locator("strong").element_handle()
    page.keyboard.press("1")
    expect(banner).to_contain_text("1 action is kept")
    expect(said).to_contain_text("1 image labeled four")
    assert title.evaluate("title => title.isConnected")  # or it would be read at every try
    assert banner.get_attribute("role") is None
    expect(page.locator("#toasts .bad")).to_have_count(0)
    serve(photos, port=served.port)
    expect(said).to_have_text("The server answers again.")
    visit.errors[:] = [text for text in visit.errors if "Failed to load resource" not in text]


def test_a_training_is_followed_in_place(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    step = 0

    def training(route: Route) -> None:
        nonlocal step
        step += 1
        now = {"state": "training", "step": step, "total": 1000, "losses": [[0, 2.0], [step, 1.0]]}
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"training": now})

    page.evaluate("location.hash = 'train'")
    page.locator("#train-start").focus()
    page.route("**/api/state", training)
    bar = page.get_by_role("progressbar", name="Training")
    expect(page.locator("#train-cancel")).to_be_focused()
    held = bar.element_handle()
    first = bar.get_attribute("aria-valuetext")
    expect(bar).not_to_have_attribute("aria-valuetext", str(first))
    assert held.evaluate("bar => bar.isConnected")
    expect(page.locator("#train-cancel")).to_be_focused()
    page.unroute("**/api/state")


def test_a_tile_says_only_whether_it_is_marked_and_is_read_once(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    page = visit.label(serve(photos))
    said = page.locator("#said")
    page.keyboard.press("Alt+2")
    tile = page.locator(".tile:focus")
    expect(tile).to_be_visible()
    name = str(tile.get_attribute("aria-label"))
    for key, told, label in ((" ", "1 image wrong.", f"{name}, wrong"), (" ", "0 images", name)):
        page.keyboard.press(key)
        expect(said).to_contain_text(told)
        expect(tile).to_have_accessible_name(label)
    page.keyboard.press("Tab")
    page.keyboard.press("n")  # of which image?
    expect(page.locator("#toasts .toast")).to_contain_text("Move to an image first")
    for opened, key in (("Alt+2", "f"), ("Alt+1", "g")):
        page.keyboard.press(opened)
        page.keyboard.press(key)
        expect(page.locator(".tile:focus")).to_be_visible()
        page.evaluate(COUNT_READ)
        page.keyboard.press("ArrowRight")
        with page.expect_response(
            lambda answer: "/similar?" in answer.url or "/suggest?" in answer.url
        ):
            page.keyboard.press(key_of(page, "three"))
        settled(page)
        expect(said).to_have_text("1 image labeled three.")
        assert page.evaluate("document.body.dataset.read") == "2", key
    assert page.locator("[aria-selected]").count() == 0


def test_the_end_of_a_training_is_said(visit: Labeling, served: Served) -> None:
    page = visit.label(served)
    said = page.locator("[aria-live=polite]", has_text="training")
    now = {"state": "training", "step": 1, "total": 1000, "losses": []}

    def training(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"training": now})

    page.route("**/api/state", training)
    for state, told in (("done", "finished"), ("failed", "failed"), ("stopped", "stopped")):
        now["state"] = "training"
        expect(page.locator("#train-button")).to_contain_text("Training 0%")
        now["state"] = state
        expect(said).to_contain_text(told)
    page.unroute("**/api/state")
