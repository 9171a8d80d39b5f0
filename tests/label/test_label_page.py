"""The page of daso label in Chromium, used as a person does: labels, rounds, tabs, and a server that is gone."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import NEEDS_CHROMIUM
from forked import Command, popen
from label.conftest import LABELED, Served
from label.test_preparation import Gate
from label_page import Labeling, key_of, label_by_keys, settled, shown_name, truth, until
from playwright.sync_api import expect
from ports import free_port

from daso.data.journal import Journal
from daso.errors import DataError

pytestmark = NEEDS_CHROMIUM
TRAIN = ("--steps", "30", "--network", "small-4", "--method", "supervised+la", "--device", "cpu")


def test_a_person_labels_undoes_confirms_trains_and_sees_new_numbers(
    visit: Labeling,
    serve: Callable[..., Served],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training: list[Command] = []

    def held(words: Sequence[str], **options: Any) -> Command:
        training.append(popen(words, **options))
        training[-1].send_signal(signal.SIGSTOP)
        return training[-1]

    monkeypatch.setattr("daso.label.training.subprocess.Popen", held)
    served = serve(photos, train=TRAIN)
    page = visit.label(served)
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
    served.session.wait()  # the class that is gone takes its beliefs along
    page.keyboard.press("Alt+2")
    page.locator(".picker button", has_text="one").click()
    believed = served.session.believed("one", 0, 1)["total"]
    expect(page.locator(".viewhead .note")).to_contain_text(f"{believed} believed")
    images = page.locator(".grid .tile")
    total, wrong = images.count(), images.nth(1)
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
    training[0].send_signal(signal.SIGCONT)  # it may be over before the page looks again
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
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos, port=free_port())
    page = visit.label(served)
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
    fresh = page.context.new_page()  # the address that the terminal shows now
    fresh.goto(third.address)  # maybe before the first tab has asked the new server
    expect(page.locator("#banner")).to_contain_text("started anew")
    settled(fresh)
    label_by_keys(page, 1)  # in the tab that should be closed
    settled(fresh)
    rows = [
        entry.image for entry in Journal.read(third.journal.path).entries if entry.action == "label"
    ]
    assert len(rows) == len(set(rows)) == 8
    assert {name: truth(name) for name in rows} == third.labels
    visit.errors[:] = [text for text in visit.errors if "Failed to load resource" not in text]


def test_the_page_opens_before_its_images_are_compared(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    gate = Gate()
    gate.error = DataError("the model is damaged; name another")
    served = serve(photos, compute=gate)
    page = visit.label(served)
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


def test_two_tabs_agree(visit: Labeling, served: Served) -> None:
    one, two = visit.label(served), visit.label(served)
    before = int(two.locator("#panel li[data-name=zero] .count").inner_text())
    name = shown_name(one)
    one.keyboard.press(key_of(one, "zero"))
    expect(two.locator("#panel li[data-name=zero] .count")).to_have_text(str(before + 1))
    expect(two.locator(".big figcaption bdi")).not_to_have_text(name)
    one.keyboard.press("u")
    expect(two.locator("#panel li[data-name=zero] .count")).to_have_text(str(before))


def test_a_cold_start_asks_for_classes_and_ends_when_all_is_decided(
    visit: Labeling, serve: Callable[..., Served], tmp_path: Path, digit_folders: Path
) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    files = sorted((digit_folders / "unlabeled").iterdir())
    for path in files[:4] + files[-4:]:
        shutil.copy(path, folder)
    served = serve(folder)
    page = visit.label(served)
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
    another = visit.open(f"{served.address}#progress")
    expect(another.locator(".bars li").first).to_be_visible()
    another.keyboard.press("u")
    expect(page.locator(".big figcaption bdi")).to_have_text(name)


def test_a_file_that_vanished_leaves_a_note_in_its_place(
    visit: Labeling, serve: Callable[..., Served], photos: Path
) -> None:
    served = serve(photos)
    first = served.session.suggest(1)[0]
    (photos / first["name"]).unlink()
    page = visit.label(served)
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
    served.session.wait()
    page.keyboard.press("Alt+2")
    image = page.locator(".grid .tile").first.get_attribute("data-image")
    lost = photos / served.session.images.name(int(str(image)))
    lost.unlink()
    page.locator(".actionbar .primary").click()
    expect(page.locator("#toasts .bad", has_text=lost.name)).to_be_visible()
    assert page.locator("#toasts .good").count() == 0
    visit.errors[:] = [text for text in visit.errors if "Failed to load resource" not in text]
    assert served.labels == {name: truth(name)}
