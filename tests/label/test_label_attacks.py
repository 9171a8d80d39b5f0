"""The server of daso label answers only its page, and says in words what is wrong with a request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from label.conftest import TOKEN, Served, client_of

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture
def ask(served: Served, client: httpx.Client) -> Callable[..., httpx.Response]:
    """Return a function that asks as the page does; options replace or leave out headers."""
    base = f"http://127.0.0.1:{served.port}"

    def send(
        path: str,
        sent: object = None,
        *,
        content: bytes | None = None,
        token: str | None = TOKEN,
        cookie: str | None = TOKEN,
        **headers: str,
    ) -> httpx.Response:
        told = {"origin": base, **JSON} if sent is not None or content is not None else {}
        told |= {"x-daso-token": token} if token and told else {}
        told |= {"cookie": f"daso-label-{served.port}={cookie}"} if cookie else {}
        told = {name: value for name, value in (told | headers).items() if value}
        body = json.dumps(sent).encode() if sent is not None else content
        client.cookies.clear()
        return client.request(
            "GET" if body is None else "POST", base + path, content=body, headers=told
        )

    return send


KEYS = itertools.count()


def label(image: object = 30, name: object = "two", action: object = "") -> dict[str, object]:
    """Return a body of its own action."""
    return {
        "images": [image],
        "label": name,
        "action": f"action {next(KEYS):06}" if action == "" else action,
    }


def test_the_page_and_its_files_come_with_a_strict_policy(
    ask: Callable[..., httpx.Response],
) -> None:
    page = ask(f"/?token={TOKEN}", cookie=None)
    assert page.status_code == 200
    assert TOKEN in page.headers["set-cookie"]
    assert {"httponly", "samesite=strict"} <= set(page.headers["set-cookie"].lower().split("; "))
    for path in ("/", "/static/main.js", "/api/state", "/thumb/0?side=96", "/no-such-thing"):
        answer = ask(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
    assert " style=" not in page.text
    assert "<script>" not in page.text
    assert "http://" not in page.text.replace("http://www.w3.org", "")


def test_without_the_token_nothing_is_told(ask: Callable[..., httpx.Response]) -> None:
    for path in ("/api/state", "/thumb/0", "/full/0", "/api/suggest", "/nothing"):
        for cookie in (None, "", "wrong", TOKEN[:-1], TOKEN + "x"):
            assert ask(path, cookie=cookie).status_code == 403, (path, cookie)
    for path in ("/", "/?token=wrong", "/?token="):
        refused = ask(path, cookie=None)
        assert refused.status_code == 403
        assert "terminal" in refused.text
        assert TOKEN not in refused.text


def test_a_name_that_points_here_is_no_way_in(
    ask: Callable[..., httpx.Response], served: Served
) -> None:
    for host in (
        "evil.example",
        f"evil.example:{served.port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil:80",
    ):
        for path in ("/api/state", f"/?token={TOKEN}", "/static/main.js"):
            assert ask(path, host=host).status_code == 421, (host, path)
    assert ask("/api/state", host=f"localhost:{served.port}").status_code == 200


def test_other_pages_change_nothing(
    ask: Callable[..., httpx.Response], served: Served, client: httpx.Client
) -> None:
    foreign = (
        "http://evil.example",
        "null",
        "",
        f"http://127.0.0.1:{served.port + 1}",
        "http://127.0.0.1",
    )
    for origin in foreign:
        assert ask("/api/assign", label(), origin=origin).status_code == 403, origin
    assert ask("/api/assign", label(), token=None).status_code == 403  # a cookie alone
    assert ask("/api/assign", label(), token="wrong").status_code == 403
    assert ask("/api/assign", label(), **{"content-type": "text/plain"}).status_code == 415
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = client.request(method, f"http://127.0.0.1:{served.port}/api/state")
        assert answer.status_code == 405
    name = served.session.images.name(30)
    assert name not in served.labels
    assert ask("/api/assign", label()).status_code == 200
    assert served.labels[name] == "two"


NUMBERS = (
    "-1",
    "999999",
    "1e3",
    "0x10",
    "%00",
    "٣",
    "1.0",
    "9" * 400,
    "..",
    "NaN",
    "1 ",
    "+1",
    "true",
)
PATHS = (
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd",
    "....//etc/passwd",
)


def test_numbers_and_paths_are_refused_in_words(ask: Callable[..., httpx.Response]) -> None:
    asked = [f"/api/image/{n}" for n in NUMBERS] + [f"/thumb/{n}" for n in NUMBERS]
    asked += [f"/api/similar?image={n}" for n in (*NUMBERS, "", *PATHS)]
    asked += [
        f"/{kind}?{key}={n}"
        for n in (*NUMBERS[:10], "0", "100000")
        for kind, key in (("api/suggest", "count"), ("api/doubtful", "count"), ("thumb/0", "side"))
    ]
    asked += [f"/api/believed?label=two&start={n}" for n in (*NUMBERS[:1], *NUMBERS[2:])]
    asked += ["/api/believed", "/api/believed?label=", "/api/believed?label=" + "x" * 500]
    asked += [f"/api/believed?label={name}" for name in ("no%20such", "%3Cscript%3E", "two%00")]
    for path in asked:
        if path == "/thumb/..":
            continue
        answer = ask(path)
        if path in ("/thumb/0?side=999999", "/api/image/.."):
            continue
        assert answer.status_code in (400, 404), path
        assert answer.json()["error"], path
        assert "Traceback" not in answer.text
    for place in PATHS:
        for kind in ("static", "thumb", "full", "api/image"):
            answer = ask(f"/{kind}/{place}")
            assert answer.status_code in (400, 404), place
            assert "root:" not in answer.text


def test_bodies_are_refused_in_words_and_change_nothing(
    ask: Callable[..., httpx.Response], served: Served
) -> None:
    before = len(served.journal.entries)
    wrong: list[tuple[str, object]] = [
        ("assign", sent)
        for sent in (
            [], "text", 3, {}, label(action=None), label(action="short"), label(action="x" * 99),
            label(-1), label(10**9), label(2**70), label(1.5), label(True), label("3"), label(None), label([3]),
            label(name=None), label(name=""), label(name=" "), label(name="no such class"), label(name=3),
            label(name="x" * 999), label(name="two\n"), label(name="../two"), {**label(), "images": []},
            {**label(), "images": list(range(501))}, {**label(), "images": {"0": 1}},
        )
    ]  # fmt: skip
    wrong += [
        ("undo", {"count": c, "action": "b" * 12})
        for c in (0, -1, 501, "1", None, 1.5, True, 10**30)
    ]
    wrong += [
        ("class", {"name": n, "action": "c" * 12})
        for n in ("", " ", "two", "a\x00b", "a\u202eb", "x" * 201, None, 7)
    ]
    wrong += [("keep", {"images": [60], "action": "d" * 12}), ("cancel", {"action": "e" * 12})]
    for path, sent in wrong:
        answer = ask(f"/api/{path}", sent)
        assert answer.status_code == 400, (path, sent, answer.text)
        assert answer.json()["error"]
    for content in (b"{", b"", b"\xff\xfe", b"[" * 100_000, b"NaN"):
        assert ask("/api/assign", content=content).status_code in (400, 411), content[:10]
    assert ask("/api/assign", content=b" " * (1 << 21)).status_code == 413
    assert len(served.journal.entries) == before


def test_an_action_that_is_sent_again_is_done_once(
    ask: Callable[..., httpx.Response], served: Served
) -> None:
    before, undoable = len(served.journal.entries), ask("/api/state").json()["undoable"]
    for _ in range(3):
        assert ask("/api/assign", label(31, action="h" * 12)).json()["undoable"] == undoable + 1
    for _ in range(2):
        undone = ask("/api/undo", {"count": 1, "action": "u" * 12}).json()
        assert [one["image"] for one in undone["undone"]] == [31]
        assert undone["undoable"] == undoable
    assert len(served.journal.entries) == before + 2


def test_class_names_are_text(ask: Callable[..., httpx.Response]) -> None:
    name = "</script><img src=x onerror=alert(1)> & \"'"
    assert ask("/api/class", {"name": name, "action": "f" * 12}).status_code == 200
    assert name in [one["name"] for one in ask("/api/state").json()["classes"]]
    answer = ask("/api/assign", label(33, name, "g" * 12))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert ask("/api/image/33").json()["label"] == name


def test_words_and_emoji_with_joiners_are_class_names(
    ask: Callable[..., httpx.Response],
) -> None:
    for number, name in enumerate(
        ("\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f467", "犬\u3000猫")
    ):
        sent = {"name": name, "action": f"joined class {number}"}
        assert ask("/api/class", sent).status_code == 200
        assert ask("/api/assign", label(34, name)).status_code == 200
        assert ask("/api/image/34").json()["label"] == name
        assert ask(f"/api/believed?label={quote(name)}").status_code == 200


def test_names_in_the_data_may_be_any_text(serve: Callable[..., Served], photos: Path) -> None:
    folder = photos.rename(photos.with_name("caf\udce9"))
    (folder / "labeled/one").rename(folder / "labeled/a\u202eb")
    (folder / "test/one").rename(folder / "test/a\u202eb")
    for path in list((folder / "unlabeled").iterdir()):
        path.rename(path.with_name(f"\udcff\n{path.name}"))
    served = serve(folder)
    client = client_of(served)
    image = client.get("/api/suggest").raise_for_status().json()["images"][0]
    client.post("/api/assign", json=label(image["image"], "a\u202eb")).raise_for_status()
    assert served.labels == {image["name"]: "a\u202eb"}
    (folder / image["name"]).unlink()
    answer = client.post("/api/assign", json=label(image["image"], "two"))
    assert answer.status_code == 400
    assert image["name"] in answer.json()["error"]


def test_a_vanished_file_is_told_in_words(
    ask: Callable[..., httpx.Response], served: Served
) -> None:
    name = served.session.images.name(40)
    (served.folder / name).unlink()
    picture = ask("/thumb/40?side=96")
    assert picture.status_code == 404
    assert picture.headers["content-type"].startswith("image/svg")
    assert "cannot be shown" in picture.text
    assert picture.headers["cache-control"] == "no-store"
    assert ask("/thumb/41?side=96").headers["content-type"] == "image/png"
    answer = ask("/api/assign", label(40, action="v" * 12))
    assert answer.status_code == 400
    assert name in answer.json()["error"]
    assert "restore the file, or skip" in answer.json()["error"]
    assert "skip the image" in picture.text
    assert ask("/api/state").status_code == 200
