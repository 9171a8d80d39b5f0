"""The page of daso label in Chromium, used as a person does."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from label.conftest import LABELED, NAMES, Served
from label.test_preparation import Gate
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from daso.data.journal import Journal
from daso.errors import DataError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
expect.set_options(timeout=60_000)
TRAIN = ("--steps", "30", "--network", "small-4", "--method", "supervised+la", "--device", "cpu")


@dataclass
class Visit:
    """Pages of one browser, and what went wrong in them."""

    browser: Browser
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(
        self, served: Served, view: str = "suggested", width: int = 1280, **options: object
    ) -> Page:
        size = {"width": width, "height": 900}
        context = self.browser.new_context(viewport=size, is_mobile=width < 600, **options)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a busy machine takes its time
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        here = f"http://127.0.0.1:{served.port}/"
        page.on(
            "request", lambda asked: asked.url.startswith(here) or self.foreign.append(asked.url)
        )
        page.goto(f"{served.address}#{view}")
        page.wait_for_selector("body[data-ready=yes] #view[aria-busy=false]")
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )


@pytest.fixture
def visit(browser: Browser, serve: Callable[..., Served]) -> Iterator[Visit]:
    """Return a visit, whose pages are closed before servers stop; nothing may go wrong in them."""
    visit = Visit(browser)
    yield visit
    for context in browser.contexts:
        context.close()
    assert visit.errors == []
    assert visit.foreign == []


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


def test_a_person_labels_undoes_confirms_trains_and_sees_new_numbers(
    visit: Visit, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos, train=TRAIN)
    page = visit.open(served)
    done = label_by_keys(page, 12)
    assert len(set(done)) == 12
    settled(page)
    assert served.labels == {name: truth(name) for name in done}

    for name in reversed(done[-3:]):
        page.keyboard.press("u")
        expect(page.locator(".big figcaption bdi")).to_have_text(name)
    assert served.labels == {name: truth(name) for name in done[:-3]}

    page.keyboard.press("+")
    page.keyboard.type("a new <b>class</b>")
    name = shown_name(page)
    page.keyboard.press("Enter")
    expect(page.locator(".big figcaption bdi")).not_to_have_text(name)
    settled(page)
    assert served.labels[name] == "a new <b>class</b>"
    assert page.locator("#panel b").count() == 0
    page.keyboard.press("Control+z")  # the label
    expect(page.locator(".big figcaption bdi")).to_have_text(name)
    page.keyboard.press("u")  # the class
    expect(page.locator("#panel li")).to_have_count(5)

    before = set(served.labels)
    page.keyboard.press("Alt+2")
    page.locator(".picker button", has_text="one").click()
    expect(page.locator(".grid .tile").first).to_be_visible()
    images = page.locator(".grid .tile")
    total, wrong = images.count(), page.locator(".grid .tile").nth(1)
    left_out = served.session.images.name(int(str(wrong.get_attribute("data-image"))))
    wrong.click()
    expect(page.locator(".actionbar .primary")).to_contain_text(f"Confirm {total - 1}")
    page.keyboard.press("Enter")
    settled(page)
    added = {n: label for n, label in served.labels.items() if n not in before}
    assert len(added) == total - 1
    assert set(added.values()) == {"one"}
    assert left_out not in added

    page.locator("#train-button").click()
    page.locator("#train-start").click()
    expect(page.locator("[role=progressbar]")).to_be_visible()
    page.keyboard.press("Alt+1")  # labeling goes on meanwhile
    label_by_keys(page, 3)
    page.locator("#train-button").click()
    expect(page.locator(".done h3")).to_contain_text("Round 1", timeout=300_000)
    expect(page.locator(".chart").first).to_be_visible()
    page.keyboard.press("Alt+5")
    expect(page.locator("tbody tr")).to_have_count(1)
    row = page.locator("tbody tr").inner_text()
    (details,) = (entry.details for entry in served.journal.entries if entry.action == "round")
    assert details is not None
    shown = float(row.split("\t")[2].partition("%")[0])
    assert shown == pytest.approx(100 * details["balanced_accuracy"], abs=0.051)
    least = len(before) + len(added) + sum(LABELED)
    assert least <= sum(details["labels"]) <= least + 3
    assert str(sum(details["labels"])) in row


def test_what_could_not_be_sent_is_sent_once_when_the_server_is_back(
    visit: Visit, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos)
    page = visit.open(served)
    done = label_by_keys(page, 2)
    settled(page)
    served.stop()
    done += label_by_keys(page, 3)
    expect(page.locator("#banner")).to_contain_text("does not answer")
    expect(page.locator("#banner")).to_contain_text("3 actions")
    again = serve(photos, port=served.port)  # the same token: the same tab goes on
    settled(page)
    expect(page.locator("#banner")).to_be_empty()
    label_by_keys(page, 1)
    again.stop()
    label_by_keys(page, 1)
    expect(page.locator("#banner")).to_contain_text("1 action")
    third = serve(photos, port=served.port, token="another-token-0123456789abcdef")
    expect(page.locator("#banner")).to_contain_text("started anew")
    fresh = page.context.new_page()  # the address that the terminal shows now
    fresh.goto(third.address)
    settled(fresh)
    rows = [
        entry.image for entry in Journal.read(third.journal.path).entries if entry.action == "label"
    ]
    assert len(rows) == len(set(rows)) == 7
    assert {name: truth(name) for name in rows} == third.labels
    visit.errors[:] = [text for text in visit.errors if "Failed to load resource" not in text]


def test_the_page_opens_before_its_images_are_compared(
    visit: Visit, serve: Callable[..., Served], photos: Path
) -> None:
    gate = Gate()
    gate.error = DataError("the model is damaged; name another")
    served = serve(photos, compute=gate)
    page = visit.open(served)
    bar = page.get_by_role("progressbar", name="Comparing your images")
    expect(bar).to_have_attribute("aria-valuenow", "50")
    done = [shown_name(page)]
    page.keyboard.press(key_of(page, truth(done[0])))
    expect(page.locator(".big figcaption bdi")).not_to_have_text(done[0])
    page.keyboard.press("u")
    expect(page.locator(".big figcaption bdi")).to_have_text(done[0])
    done = label_by_keys(page, 3)
    for view in ("Alt+2", "Alt+4"):
        page.keyboard.press(view)
        expect(page.locator(".state h2")).to_contain_text("being compared")
    gate.opened.set()
    alert = page.locator("#compared [role=alert]")
    expect(alert).to_contain_text("the model is damaged; name another")
    page.keyboard.press("Alt+1")
    name = shown_name(page)
    gate.opened.clear()
    gate.error = None
    alert.get_by_role("button", name="Try again").click()
    expect(bar).to_be_visible()
    gate.opened.set()
    expect(page.locator("#compared")).to_be_empty()
    expect(page.locator("#toasts")).to_contain_text("compared")
    assert shown_name(page) == name  # what the person was at
    settled(page)
    assert served.labels == {one: truth(one) for one in done}
    label_by_keys(page, 1)
    expect(page.locator(".big .chip")).to_have_count(0)
    expect(page.locator(".facts .chip")).not_to_have_text("At random")
    page.keyboard.press("Alt+2")
    expect(page.locator(".grid .tile").first).to_be_visible()


def test_two_tabs_agree(visit: Visit, served: Served) -> None:
    one, two = visit.open(served), visit.open(served)
    before = int(two.locator("#panel li[data-name=zero] .count").inner_text())
    name = shown_name(one)
    one.keyboard.press(key_of(one, "zero"))
    expect(two.locator("#panel li[data-name=zero] .count")).to_have_text(str(before + 1))
    expect(two.locator(".big figcaption bdi")).not_to_have_text(name)
    one.keyboard.press("u")
    expect(two.locator("#panel li[data-name=zero] .count")).to_have_text(str(before))


def test_a_grid_is_used_by_keys_and_by_mouse(visit: Visit, served: Served) -> None:
    page = visit.open(served)
    page.keyboard.press("g")
    tiles = page.locator(".grid .tile")
    expect(tiles.first).to_be_focused()
    images = [int(str(tile.get_attribute("data-image"))) for tile in tiles.all()]
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    tiles.nth(4).click(modifiers=["Shift"])
    expect(page.locator(".tile[aria-selected=true]")).to_have_count(5)
    page.keyboard.press("n")
    settled(page)
    names = [served.session.images.name(image) for image in images]
    assert {name: served.labels.get(name, "") for name in names[:6]} == dict.fromkeys(names[:5]) | {
        names[5]: ""
    }
    for _ in range(5):
        page.keyboard.press("u")
    settled(page)
    page.wait_for_timeout(100)
    assert not set(served.labels) & set(names)


def test_more_like_this_and_check_labels(
    visit: Visit, serve: Callable[..., Served], photos: Path
) -> None:
    wrong = sorted((photos / "labeled" / "zero").iterdir())[0]
    shutil.move(wrong, photos / "labeled" / "one" / wrong.name)  # a zero among the ones
    served = serve(photos)
    page = visit.open(served)
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


def test_a_cold_start_asks_for_classes_and_ends_when_all_is_decided(
    visit: Visit, serve: Callable[..., Served], tmp_path: Path, digit_folders: Path
) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    files = sorted((digit_folders / "unlabeled").iterdir())
    for path in files[:4] + files[-4:]:
        shutil.copy(path, folder)
    served = serve(folder)
    page = visit.open(served)
    expect(page.locator(".viewhead")).to_contain_text("no class yet")
    page.keyboard.press("Enter")  # there is nothing to confirm
    expect(page.locator("#toasts")).to_contain_text("no guess")
    known: set[str] = set()
    for _ in range(8):
        name = shown_name(page)
        if truth(name) in known:
            page.keyboard.press(key_of(page, truth(name)))
        else:
            page.keyboard.press("+")
            page.keyboard.type(truth(name))
            page.keyboard.press("Enter")
            known.add(truth(name))
        expect(page.get_by_text(name)).to_have_count(0)
    expect(page.locator(".state h2")).to_contain_text("Nothing is left")
    settled(page)
    assert served.labels == {path.name: truth(path.name) for path in folder.glob("*.png")}


def test_a_file_that_vanished_leaves_a_note_in_its_place(
    visit: Visit, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos)
    first = served.session.suggest(1)[0]
    (photos / first["name"]).unlink()
    page = visit.open(served)
    expect(page.locator(".big figcaption bdi")).to_have_text(first["name"])
    until(page, "document.querySelector('.big .main').naturalWidth === 640")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts .bad")).to_be_visible()
    expect(page.locator(".big figcaption bdi")).to_have_text(first["name"])
    page.keyboard.press("s")
    expect(page.locator(".big figcaption bdi")).not_to_have_text(first["name"])
    name = shown_name(page)
    page.keyboard.press(key_of(page, truth(name)))
    settled(page)
    visit.errors[:] = [text for text in visit.errors if "Failed to load resource" not in text]
    assert served.labels == {name: truth(name)}


def test_what_was_clicked_away_stays_so_after_an_undo(
    visit: Visit, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos)
    page = visit.open(served)
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
    expect(marked).to_have_attribute("aria-selected", "true")
    expect(page.locator(".grid .tile[aria-selected=true]")).to_have_count(1)


def test_hundreds_of_classes_are_searched(
    visit: Visit, serve: Callable[..., Served], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for number in range(300):
        path = tmp_path / "many" / "labeled" / f"species {number:03}" / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    (tmp_path / "many" / "unlabeled").mkdir()
    for number in range(5):
        Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(
            tmp_path / "many" / "unlabeled" / f"u{number}.png"
        )
    served = serve(tmp_path / "many")
    page = visit.open(served)
    name = shown_name(page)
    page.keyboard.press("/")
    page.keyboard.type("species 27")
    expect(page.locator("#panel li:visible")).to_have_count(10)
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    settled(page)
    assert served.labels == {name: "species 273"}


VIEWS = ("suggested", "confirm", "similar/3", "check", "progress", "train")


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1280, "dark"), (2560, "light")])
def test_every_view_fits_has_names_and_follows_the_theme(
    visit: Visit, served: Served, width: int, theme: str
) -> None:
    page = visit.open(served, width=width, color_scheme=theme)
    backgrounds = Counter()
    for view in VIEWS:
        page.evaluate(f"location.hash = {view!r}")
        page.wait_for_timeout(400)
        expect(page.locator("#view h2").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        backgrounds[page.evaluate("getComputedStyle(document.body).backgroundColor")] += 1
        assert nameless(page) == [], view
    (color,) = backgrounds
    assert (int(color.split("(")[1].split(",")[0]) > 128) == (theme == "light")


def nameless(page: Page) -> list[str]:
    """Return the roles of what a screen reader would announce without a name."""
    session = page.context.new_cdp_session(page)
    session.send("Accessibility.enable")
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    wanted = {
        "button",
        "link",
        "option",
        "listbox",
        "image",
        "searchbox",
        "textbox",
        "progressbar",
        "region",
    }
    return [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in wanted
        and not node["name"]["value"].strip()
    ]


def test_keys_alone_reach_everything_and_the_focus_is_seen(visit: Visit, served: Served) -> None:
    page = visit.open(served)
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
