"""A labeling session on real digits: decisions, undo, reopening, suggestions, refused requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daso.errors import DasoError
from daso.label.features import cached, of_patches
from daso.label.images import Embedding, Images
from daso.label.session import REFIT_AFTER, Session
from tests.helpers.labeling import NAMES, Digits, make_digits

MOVING = ("version", "fitting", "labels_per_minute", "undone")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return make_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def digits(shared: Digits) -> Digits:
    shared.data.journal.unlink(missing_ok=True)
    return shared


@pytest.fixture
def session(digits: Digits) -> Iterator[Session]:
    session = digits.open()
    yield session
    session.wait()
    session.journal.close()


def decided(session: Session) -> dict[str, Any]:
    """Return all that decisions determine."""
    session.wait()
    state = {key: value for key, value in session.state().items() if key not in MOVING}
    for row in state["classes"]:
        row.pop("expected")
    images = range(0, len(session.images), 7)
    keys = ("label", "none", "skipped")
    return {**state, "images": [{k: session.describe(i)[k] for k in keys} for i in images]}


def act(session: Session, digits: Digits) -> list[int]:
    """Do a bit of everything; return the images that were decided or put aside."""
    a, b, c, d, e, f = (one["image"] for one in session.suggest(6))
    session.assign([a], digits.name(a), seconds=1.5)
    session.none(b)
    session.skip(c)
    session.add_class("scribble")
    session.assign([d, e], "scribble")
    session.assign([0], "nine")
    session.keep(1)
    session.assign([a], "scribble")
    session.none(2)
    session.skip(d)
    session.assign([f], "one")
    return [a, b, c, d, e, f]


def test_undo_restores_the_state_exactly_step_by_step(session: Session, digits: Digits) -> None:
    before = decided(session)
    act(session, digits)
    assert decided(session) != before
    steps = session.state()["undoable"]
    assert steps == 12
    first = session.undo()["undone"]
    assert [one["action"] for one in first] == ["label"]
    assert first[0]["label"] == "one"
    session.undo(steps)
    assert decided(session) == before
    assert session.undo()["undone"] == []


def test_a_journal_gives_the_same_state_again(session: Session, digits: Digits) -> None:
    act(session, digits)
    session.undo(2)
    session.finish_round({"balanced_accuracy": 0.5})
    session.skip(9)
    state, again = decided(session), digits.reopen(session)
    assert decided(again) == state
    assert state["round"] == 1
    again.undo(20)
    again.journal.close()


def test_suggestions_hold_no_decided_image_and_each_once(session: Session, digits: Digits) -> None:
    done = set(act(session, digits))
    for _ in range(3):
        images = [one["image"] for one in session.suggest(25)]
        assert len(set(images)) == len(images) == 25
        assert not done & set(images)
        assert not any(session.describe(image)["label"] for image in images)
        session.assign(images[:10], "two")
        done |= set(images[:10])
    listed = [one["image"] for name in NAMES for one in session.believed(name, 0, 600)["images"]]
    assert not done & set(listed)


def test_suggestions_say_why_in_words_that_name_the_classes(
    session: Session, digits: Digits
) -> None:
    found = session.suggest(60)
    assert {one["kind"] for one in found} == {"doubt", "any"}
    for one in found:
        assert one["reason"].endswith(".")
        assert one["guess"] == one["beliefs"][0][0]
        assert one["probability"] == max(p for _, p in one["beliefs"])
        assert all(
            session.describe(near["image"])["label"] == near["label"] for near in one["near"]
        )
        if one["kind"] == "doubt":
            assert all(repr(name) in one["reason"] for name, _ in one["beliefs"][:2])


def test_the_head_is_fitted_again_and_learns(session: Session, digits: Digits) -> None:
    def hits() -> float:
        rows = [session.describe(image) for image in range(30, 600, 3)]
        return float(np.mean([r["guess"] == digits.name(r["image"]) for r in rows]))

    before, version = hits(), session.version
    for one in session.suggest(REFIT_AFTER - 1):
        session.assign([one["image"]], digits.name(one["image"]))
    session.wait()
    assert session.version == version
    for _ in range(4):
        for one in session.suggest(REFIT_AFTER):
            session.assign([one["image"]], digits.name(one["image"]))
        session.wait()
    assert session.version >= version + 3
    assert hits() > before


def test_a_first_label_of_a_class_refits_at_once(session: Session) -> None:
    version = session.version
    session.add_class("scribble")
    session.assign([100], "scribble")
    session.wait()
    assert session.version > version
    assert session.describe(100)["guess"] == "scribble"
    session.undo(2)
    session.wait()
    assert session.describe(100)["guess"] in NAMES


def test_none_leaves_the_pool_for_good(session: Session, digits: Digits) -> None:
    image = session.suggest(1)[0]["image"]
    neighbor = session.similar(image, 1)[0]["image"]
    session.none(image)
    again = digits.reopen(session)
    assert image not in [one["image"] for one in again.similar(neighbor, 600)]
    assert image not in [one["image"] for one in again.suggest(600)]
    assert again.state()["none"] == 1
    again.journal.close()


def test_similar_images_come_nearest_first(session: Session, digits: Digits) -> None:
    found = session.similar(40, 20)
    cosines = [one["cosine"] for one in found]
    assert cosines == sorted(cosines, reverse=True)
    assert np.mean([digits.truth[one["image"]] == digits.truth[40] for one in found]) > 0.5
    for one in found:
        told = session.describe(one["image"])
        assert (one["label"], one["name"]) == (told["label"], told["name"])


def test_a_replaced_image_is_not_taken_for_the_decided_one(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, images=200)
    session = digits.open()
    session.assign([50], "one")
    entry = json.loads(digits.data.journal.read_text().splitlines()[0])
    session.journal.close()
    assert entry["checksum"] == session.images.checksum(50)
    entry["checksum"] = session.images.checksum(51)
    del entry["line_checksum"]  # of what was written
    digits.data.journal.write_text(json.dumps(entry) + "\n")
    again = digits.open()
    assert again.describe(50)["label"] is None
    assert again.state()["changed"] == 1
    again.journal.close()


BAD = [
    (lambda s: s.assign([-1], "one"), "-1"),
    (lambda s: s.assign([10**9], "one"), "numbered"),
    (lambda s: s.assign([True], "one"), "True"),
    (lambda s: s.assign(["../x"], "one"), "numbered"),
    (lambda s: s.assign([50, 10**9], "one"), "numbered"),
    (lambda s: s.assign([50], "tree"), "tree"),
    (lambda s: s.assign([50], "thre"), "three"),
    (lambda s: s.none(600), "600"),
    (lambda s: s.similar(600, 3), "600"),
    (lambda s: s.describe(600), "600"),
    (lambda s: s.believed("tree", 0, 3), "tree"),
    (lambda s: s.keep(50), "no label"),
    (lambda s: s.add_class("  "), "name"),
    (lambda s: s.add_class(" nan"), "missing label"),
    (lambda s: s.add_class("one"), "already"),
    (lambda s: s.replace_embedding(Embedding(np.zeros((3, 2), np.float32), "few")), "3 images"),
]


def test_what_is_not_there_is_refused_and_nothing_is_written(session: Session) -> None:
    for request_, word in BAD:
        with pytest.raises(DasoError, match=word):
            request_(session)
        assert not session.journal.entries, request_


def test_features_are_kept_until_the_images_change(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, images=100)
    images, path = Images(digits.data), tmp_path / "features.safetensors"
    encoder = of_patches(images)
    seen: list[int] = []
    first = cached(path, images, encoder, lambda done, _: seen.append(done))
    assert seen[-1] == 100
    again = cached(path, images, encoder, lambda *_: pytest.fail("computed again"))
    assert (first.features == again.features).all()
    other = make_digits(tmp_path, each=4, images=101)
    more = cached(path, Images(other.data), encoder)
    assert len(more.features) == 101


def test_features_that_cannot_be_kept_are_used(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, images=100)
    images, told = Images(digits.data), list[str]()
    (tmp_path / "file").write_text("")
    embedding = cached(tmp_path / "file" / "f", images, of_patches(images), notice=told.append)
    assert len(embedding.features) == 100
    (message,) = told
    assert "name a folder" in message
