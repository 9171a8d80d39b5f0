"""Reports in Chromium: pictures, sorting, filtering, keys, themes and narrow screens."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
from browser import NEEDS_CHROMIUM, inaccessible
from playwright.sync_api import Page
from report_page import HOSTILE, make_hostile
from report_visit import SETTLED, Reports, brightness

from daso.files import read_json

pytestmark = NEEDS_CHROMIUM

CARDS = "[...document.querySelectorAll('#gallery > li')]"


def test_numbers_are_printed_as_python_prints_them(visit: Reports) -> None:
    random = np.random.default_rng(0)
    ties = [odd / 2**power for odd in range(1, 400, 2) for power in (1, 2, 3)]
    values = [*ties, *random.uniform(0, 100, 2000).round(3).tolist(), *random.random(2000).tolist()]
    values += [-value for value in values] + [0, 0.835, 0.145, 1e-9]
    page = visit.open("about:blank")
    templates = resources.files("daso.report.html.templates")
    page.add_script_tag(content=templates.joinpath("numbers.js").read_text(encoding="utf-8"))
    for digits in (0, 1, 2):
        said = page.evaluate(f"values => values.map(value => fixed(value, {digits}))", values)
        assert said == [f"{value:.{digits}f}" for value in values]
    said = page.evaluate("values => values.map(value => percent(value))", values)
    assert said == [f"{100 * value:.0f}%" for value in values]
    assert page.evaluate("percent(null)") == "\N{EN DASH}"


def column(page: Page, table: str, number: int) -> list[str]:
    rows = f"[...document.getElementById('{table}').tBodies[0].rows].filter(row => !row.hidden)"
    return list(page.evaluate(f"{rows}.map(row => row.cells[{number}].textContent.trim())"))


def type_into(page: Page, selector: str, text: str) -> None:
    page.evaluate(f"document.querySelector({selector!r}).focus()")
    page.evaluate(f"document.querySelector({selector!r}).value = ''")
    page.keyboard.insert_text(text)


def choose(page: Page, name: str, value: str) -> None:
    change = "dispatchEvent(new Event('change'))"
    page.evaluate(
        f"(e => {{ e.value = {value!r}; e.{change}; }})(document.getElementById({name!r}))"
    )


def look_at_every_picture(page: Page) -> None:
    for gallery in ("confident", "uncertain", "disagreeing"):
        page.evaluate(f"document.querySelector('[data-gallery={gallery}]').click()")
        page.evaluate("document.getElementById('gallery-more').click()")
        page.evaluate(SETTLED)
        cards = page.evaluate("document.querySelectorAll('#gallery > li').length")
        assert cards > 20
        loaded = page.evaluate(
            "[...document.images].filter(i => i.complete && i.naturalWidth === 8).length"
        )
        assert loaded == page.evaluate("document.images.length")
        assert page.evaluate("document.querySelectorAll('#gallery img.main').length") == cards


def sort_a_table_by_number_and_by_name(page: Page) -> None:
    button = "document.querySelectorAll('#class-table thead button')"
    page.evaluate(f"{button}[1].click()")
    falling = [int(value) for value in column(page, "class-table", 1)]
    assert falling == sorted(falling, reverse=True)
    page.evaluate(f"{button}[1].click()")
    assert [int(value) for value in column(page, "class-table", 1)] == falling[::-1]
    assert (
        page.evaluate("document.querySelector('#class-table th[aria-sort]').ariaSort")
        == "ascending"
    )
    page.evaluate(f"{button}[0].click()")
    assert column(page, "class-table", 0) == [str(digit) for digit in range(10)]
    page.evaluate(f"{button}[4].click()")
    recalls = [value for value in column(page, "class-table", 4) if value != "–"]  # noqa: RUF001
    assert [float(value) for value in recalls] == sorted(map(float, recalls), reverse=True)


def reach_and_use_a_column_head_by_keys(page: Page) -> None:
    page.evaluate("document.querySelector('[data-filters=class-table]').focus()")
    for _ in range(3):  # the region of the table, its first head, its second
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "labeled"
    page.keyboard.press("Enter")
    values = [int(value) for value in column(page, "class-table", 1)]
    assert values == sorted(values, reverse=True)


def filter_a_table(page: Page) -> None:
    type_into(page, "[data-filters=next-table]", "image 1")
    shown = column(page, "next-table", 3)
    assert 0 < len(shown) < 100
    assert all("image 1" in text for text in shown)
    said = page.evaluate("document.querySelector('[data-count=next-table]').textContent")
    assert said == f"{len(shown)} of 100"


def filter_and_sort_a_gallery(page: Page) -> None:
    page.evaluate("document.querySelector('[data-gallery]').click()")
    cards = f"{CARDS}.map(li => li.querySelector('.says').textContent)"
    everything = page.evaluate(cards)
    choose(page, "gallery-class", "3")
    chosen = page.evaluate(cards)
    assert 0 < len(chosen) < len(everything)
    assert all("says3" in text or "like3" in text or "final3" in text for text in chosen)
    choose(page, "gallery-class", "")
    type_into(page, "#gallery-find", "no such class")
    assert page.evaluate(cards) == []
    assert page.evaluate("document.getElementById('gallery-count').textContent") == "0 of 0"
    type_into(page, "#gallery-find", "7")
    assert all("7" in text for text in page.evaluate(cards))
    page.evaluate("document.querySelector('[data-gallery=confident]').click()")
    choose(page, "gallery-sort", "low")
    type_into(page, "#gallery-find", " ")
    confidences = page.evaluate(
        CARDS
        + """.map(li => {
          const said = [...li.querySelectorAll('.says i')];
          const last = said.filter(i => ['says', 'final'].includes(i.textContent)).pop();
          return parseInt(last.nextSibling.nextSibling.textContent);
        })"""
    )
    assert len(confidences) > 20
    assert confidences == sorted(confidences)


def pick_the_curves_of_a_class(page: Page) -> None:
    lines = "[...document.querySelectorAll('#picked path.line')].map(p => p.outerHTML).join()"
    before = page.evaluate(lines)
    choose(page, "pick-class", "0")
    frequent = page.evaluate(lines)
    choose(page, "pick-class", "9")
    assert len({before, frequent, page.evaluate(lines)}) == 3


def single_out_a_class_on_the_map(page: Page) -> None:
    dim = "document.querySelectorAll('svg.map .points .dim').length"
    assert page.evaluate(dim) == 0
    choose(page, "map-class", "0")
    assert (
        0
        < page.evaluate(dim)
        < page.evaluate("document.querySelectorAll('svg.map .points circle').length")
    )
    choose(page, "map-class", "")
    choose(page, "map-color", "agree")
    circles = "[...document.querySelectorAll('svg.map .points circle')]"
    colors = f"new Set({circles}.map(c => c.style.fill)).size"
    assert page.evaluate(colors) == 2


def test_hostile_names_do_nothing(visit: Reports, finished_run: Path) -> None:
    make_hostile(finished_run)
    page = visit.report(finished_run)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    for gallery in ("confident", "uncertain", "disagreeing"):
        page.evaluate(f"document.querySelector('[data-gallery={gallery}]').click()")
    page.evaluate(SETTLED)
    assert page.evaluate("document.title").startswith("finished: " + HOSTILE[0])
    assert HOSTILE[1] in page.evaluate("document.getElementById('class-table').textContent")
    assert page.evaluate("document.scripts.length") == 3
    page = visit.file(finished_run / "report.html", 320)
    for width in (320, 390):  # names are long, one of them without a blank
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_large_confusion_matrix_tells_its_cells(
    visit: Reports, many_classes: Path, tmp_path: Path
) -> None:
    page = visit.report(Path(shutil.copytree(many_classes, tmp_path / "run")))
    page.evaluate("document.getElementById('pixel-matrix').focus()")
    page.keyboard.press("ArrowRight")
    said = page.evaluate("document.getElementById('pixel-said').textContent")
    names = page.evaluate("JSON.parse(document.getElementById('data').textContent).confusion.names")
    assert said.endswith(f"images of {names[0]} were classified as {names[1]}")
    choose(page, "confusion-class", "3")
    answers = page.evaluate(
        "[...document.querySelectorAll('#confusion-answers li span:last-child')]"
        ".map(s => parseInt(s.textContent))"
    )
    cells = page.evaluate(
        "JSON.parse(document.getElementById('data').textContent).confusion.cells"
    )[3]
    assert answers == sorted((count for _, count in cells), reverse=True)


def test_a_running_training_opens_without_errors(visit: Reports, finished_run: Path) -> None:
    for name in ("summary.json", "confusion.json", "beliefs.safetensors"):
        (finished_run / name).unlink()
    page = visit.report(finished_run)
    assert page.evaluate("document.querySelectorAll('main > section').length") == 5


def walk_through_the_whole_report_by_keys(page: Page) -> None:
    """Tab reaches every control in the order of the page, and the focus can be seen."""
    wanted = "a[href], button, select, input, summary, [tabindex='0']"
    count = page.evaluate(
        f"[...document.querySelectorAll({wanted!r})].filter(e => e.checkVisibility()).length"
    )
    places = []
    for step in range(count):
        page.keyboard.press("Tab")
        place, outline, focused = page.evaluate(
            "(e => [[...document.querySelectorAll('*')].indexOf(e), getComputedStyle(e).outlineStyle,"
            " e.outerHTML.slice(0, 200)])(document.activeElement)"
        )
        places.append(place)
        assert outline != "none", (step, count, focused)
    assert places == sorted(set(places))


def look_for_names_on_the_map_that_hide_others(page: Page) -> None:
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg.map text')].map(t => t.getBBox())"
        ".map(b => [b.x, b.y, b.width, b.height])"
    )
    assert len(boxes) == 10
    for i, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[:i]:
            apart = (
                x >= left + wide
                or left >= x + width
                or y + 4 >= top + high
                or top + 4 >= y + height
            )
            assert apart


def sort_filter_and_choose_by_keys(page: Page) -> None:
    page.evaluate(
        "(details => { details.open = false; details.querySelector('summary').focus(); })"
        "(document.querySelector('[data-filters=mistakes]').closest('details'))"
    )
    page.keyboard.press("Enter")  # opens what the summary stands for
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.filters") == "mistakes"
    page.keyboard.insert_text("9")
    there = column(page, "mistakes", 0)
    said = page.evaluate("document.querySelector('[data-count=mistakes]').textContent")
    assert said.startswith(f"{len(there)} of ")
    for _ in range(4):  # the region of the table and three of its heads
        page.keyboard.press("Tab")
    for rising in (False, True):
        page.keyboard.press("Enter")
        counts = [int(text) for text in column(page, "mistakes", 2)]
        assert counts == sorted(counts, reverse=not rising)
    page.evaluate("document.getElementById('map-class').focus()")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.getElementById('map-class').selectedIndex") == 1
    assert page.evaluate("document.querySelectorAll('svg.map .points .dim').length") > 0
    choose(page, "map-class", "")


def test_a_report_is_read_by_mouse_and_by_keys(visit: Reports, finished_run: Path) -> None:
    page = visit.report(finished_run)
    walk_through_the_whole_report_by_keys(page)
    look_for_names_on_the_map_that_hide_others(page)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.evaluate(SETTLED)
    assert inaccessible(page) == []
    sort_a_table_by_number_and_by_name(page)
    reach_and_use_a_column_head_by_keys(page)
    sort_filter_and_choose_by_keys(page)
    filter_a_table(page)
    look_at_every_picture(page)
    filter_and_sort_a_gallery(page)
    pick_the_curves_of_a_class(page)
    single_out_a_class_on_the_map(page)


def test_the_theme_is_the_systems_until_the_button_says_otherwise(
    visit: Reports, finished_run: Path
) -> None:
    page = visit.report(finished_run)
    assert brightness(page) > 128
    page.emulate_media(color_scheme="dark")
    assert brightness(page) < 128
    for system, light in (("dark", True), ("light", False)):
        page.emulate_media(color_scheme=system)
        page.evaluate("document.getElementById('theme').click()")
        page.evaluate(SETTLED)
        assert (brightness(page) > 128) == light
        for _ in range(60):  # what is remembered is written while the page goes on
            page.reload()
            if (brightness(page) > 128) == light:
                break
            page.wait_for_timeout(500)
        assert (brightness(page) > 128) == light


def test_a_class_has_one_line_of_its_table(visit: Reports, finished_run: Path) -> None:
    data = read_json(finished_run / "data.json")
    names = [
        "pullover form 00",
        "a",
        "ankle boot",
        "T-shirt/top",
        *(f"class {k}" for k in range(6)),
    ]
    (finished_run / "data.json").write_text(json.dumps(data | {"class_names": names}))
    page = visit.report(finished_run, 390)
    for width in (390, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        heights = page.evaluate(
            "[...document.querySelectorAll('#class-table tbody th')].map(cell => cell.offsetHeight)"
        )
        assert len(heights) == 10
        assert max(heights) < 35  # two lines have 46 pixels
