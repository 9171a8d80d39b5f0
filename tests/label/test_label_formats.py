"""Labels given in the page reach training, whatever the images are kept in and the recipe is."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.label_sets import write_set
from starlette.testclient import TestClient

from daso.cli import main
from daso.data.journal import Journal

TOKEN = "token-of-the-tests-0123456789"
TINY = "--steps 2 --batch 4 --method supervised --network small-4 --device cpu"
WAYS = ("manifest", "parquet", "npz", "tar", "run", "frozen", "patches")


class Visitor:
    """Asks the application as the page does; stands for the server, whose signature it has."""

    def __init__(self, visit: Callable[[Visitor], None]) -> None:
        self._visit, self._keys = visit, itertools.count()

    def __call__(self, make_app: Callable[..., Any], *rest: Any, **named: Any) -> None:
        app = make_app(TOKEN, {"testserver"}, 80)
        headers = {"origin": "http://testserver", "x-daso-token": TOKEN}
        self._client = TestClient(app, headers=headers)
        self._client.get("/", params={"token": TOKEN})
        self._visit(self)

    def get(self, path: str) -> Any:
        return self._client.get(f"/api/{path}").raise_for_status().json()

    def post(self, path: str, **sent: Any) -> Any:
        sent["action"] = f"key {next(self._keys):06}"
        return self._client.post(f"/api/{path}", json=sent).raise_for_status().json()

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first state that is wanted; the test's timeout ends the wait."""
        while not wanted(state := self.get("state")):
            assert state["features"]["state"] != "failed", state["features"]
            assert state["training"]["state"] != "failed", state["training"]["error"]
            time.sleep(0.05)
        return dict(state)


@pytest.mark.parametrize("way", WAYS)
def test_labels_of_the_page_are_used_by_training(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = way if way in ("manifest", "parquet", "npz", "tar") else "folder"
    source = write_set(tmp_path / "images", kind)
    cache = ["--cache", str(tmp_path / "cache")] if way == "tar" else []
    train, label = TINY.split(), [str(source), *cache]
    if way in ("run", "frozen"):
        assert main(["train", str(source), *train, "--out", "before"]) == 0
    if way == "run":
        label = ["before"]
    elif way == "frozen":
        frozen = ["--network", str(tmp_path / "before"), "--freeze"]
        train = [*TINY.replace("--network small-4 ", "").split(), *frozen]
        label += frozen[:2]
    elif way == "patches":
        train[train.index("supervised")] = "supervised+mixture"
    given: dict[int, str] = {}

    def visit(visitor: Visitor) -> None:
        visitor.until(lambda state: state["compared"] and not state["fitting"])
        visitor.post("class", name="owl")
        found = [one["image"] for one in visitor.get("suggest?count=4")["images"]]
        given.update(zip(found, ("cat", "dog", "owl", "owl"), strict=True))
        for image, name in given.items():
            visitor.post("assign", images=[image], label=name)
        if way in ("run", "frozen", "tar"):  # the page starts a training, and takes its model
            visitor.post("train")
            state = visitor.until(lambda state: state["training"]["state"] == "done")
            assert (state["round"], state["features"]["state"]) == (1, "ready")
            (done,) = visitor.get("progress")["rounds"]
            assert sum(done["labels"]) == 15
        assert visitor.get(f"image/{found[2]}")["label"] == "owl"

    monkeypatch.setattr("daso.label.web.server.serve", Visitor(visit))
    rest = [] if way == "frozen" else TINY.split()
    options = ["--train", " ".join(rest or train[: train.index("--network")])]
    options = [f"--train={options[1]}"] if way != "run" else []
    assert main(["label", *label, *options, "--no-open"]) == 0
    (journal,) = (tmp_path / "images").glob("*daso-labels.jsonl")
    assert len(Journal.read(journal).decisions()) == 4
    capsys.readouterr()
    assert main(["train", str(source), *cache, *train, "--out", "after"]) == 0
    told = capsys.readouterr().err
    assert "4 labels of daso label are used" in told
    data = json.loads((tmp_path / "after" / "data.json").read_text())
    counts = dict(zip(data["class_names"], data["labeled_counts"], strict=True))
    assert counts == {"cat": 7, "dog": 6, "owl": 2}
