"""The journal of a page whose disk is full, slow, or was written to by an earlier process."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from label.conftest import Served, client_of

from daso.data.journal import Journal


@pytest.fixture
def served(serve: Callable[..., Served], photos: Path) -> Served:
    return serve(photos)


def actions(first: int) -> list[tuple[str, dict[str, Any]]]:
    """Return one of each action, with its key."""
    told: list[tuple[str, dict[str, Any]]] = [
        ("assign", {"images": [first, first + 1], "label": "two"}),
        ("none", {"images": [first + 2, first + 3]}),
        ("skip", {"images": [first + 4]}),
        ("keep", {"images": [0, 1]}),
        ("class", {"name": "\u00e9cureuil"}),
        ("undo", {"count": 1}),
    ]
    return [(path, {**sent, "action": f"{path} {first:08}"}) for path, sent in told]


def test_a_full_disk_is_told_and_what_it_did_not_take_is_taken_later(served: Served) -> None:
    client, path = client_of(served), served.journal.path
    client.post("/api/assign", json=actions(50)[0][1]).raise_for_status()
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = client.get("/api/state").json()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))  # half a line
        answers = [client.post(f"/api/{name}", json=sent) for name, sent in actions(30)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for answer in answers:
        assert answer.status_code == 400
        assert f"cannot write {path}: File too large" in answer.json()["error"]
    assert path.read_bytes() == before
    assert client.get("/api/state").json() == state
    for name, sent in actions(30):
        client.post(f"/api/{name}", json=sent).raise_for_status()
    done = [entry.action for entry in Journal.read(path).entries]
    assert done == [*4 * ["label"], *2 * ["none"], "skip", *2 * ["keep"], "class", "undo"]


def test_a_request_that_is_sent_again_after_a_restart_is_done_once(
    served: Served, serve: Callable[..., Served]
) -> None:
    client = client_of(served)
    for name, sent in actions(30):
        client.post(f"/api/{name}", json=sent).raise_for_status()
    state = client.get("/api/state").json()["undoable"]
    served.stop()
    again = serve(served.folder)
    client = client_of(again)
    for name, sent in actions(30):
        assert client.post(f"/api/{name}", json=sent).raise_for_status().json()["undoable"] == state
    assert len(Journal.read(again.journal.path).entries) == 9


def test_a_request_of_which_a_kill_left_a_part_is_completed(
    served: Served, serve: Callable[..., Served]
) -> None:
    images = list(range(30, 60))
    sent: dict[str, Any] = {"images": images, "label": "two", "action": "confirmed grid"}
    undo: dict[str, Any] = {"count": 8, "action": "undo of eight"}
    client_of(served).post("/api/assign", json=sent).raise_for_status()
    served.stop()
    lines = served.journal.path.read_bytes().splitlines(keepends=True)
    served.journal.path.write_bytes(b"".join(lines[:11]) + lines[11][:70])
    again = serve(served.folder)
    client = client_of(again)
    for _ in range(2):
        state = client.post("/api/assign", json=sent).raise_for_status().json()
        assert state["undoable"] == len(images)
    assert len(again.labels) == len(images)
    client.post("/api/undo", json=undo).raise_for_status()
    again.stop()
    lines = again.journal.path.read_bytes().splitlines(keepends=True)
    again.journal.path.write_bytes(b"".join(lines[:-3]))
    client = client_of(third := serve(served.folder))
    for _ in range(2):
        client.post("/api/undo", json=undo).raise_for_status()
        assert len(third.labels) == len(images) - 8


def test_a_slow_disk_holds_up_nobody_who_looks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, flush = client_of(served), os.fsync
    asked, allowed = threading.Event(), threading.Event()

    def slowly(file: int) -> None:
        asked.set()
        allowed.wait()
        flush(file)

    monkeypatch.setattr("daso.files.os.fsync", slowly)
    name, sent = actions(30)[0]
    answers: list[httpx.Response] = []
    acting = threading.Thread(target=lambda: answers.append(client.post(f"/api/{name}", json=sent)))
    acting.start()
    asked.wait()
    for path in ("state", "suggest", "image/30", "similar?image=3", "believed?label=two"):
        assert client_of(served).get(f"/api/{path}").status_code == 200
    assert (
        client_of(served).get("/api/image/30").json()["label"] is None
    )  # nobody is told too early
    allowed.set()
    acting.join()
    assert answers[0].status_code == 200
    assert client.get("/api/image/30").json()["label"] == "two"


def test_suggestions_that_come_while_others_are_told_are_asked_for_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, session = client_of(served), served.session
    before, suggest = session.version, session.suggest

    def outdated(count: int) -> list[dict[str, Any]]:
        images = suggest(count)
        session.version += 1
        return images

    monkeypatch.setattr(session, "suggest", outdated)
    told = client.get("/api/suggest").json()["version"]
    assert before <= told < client.get("/api/state").json()["version"]
