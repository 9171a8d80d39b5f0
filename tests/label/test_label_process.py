"""``daso label`` as a process: killed and opened again, nothing is lost and nothing is there twice."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest
from forked import command, finish
from forked import start as start_process

from daso.cli import main
from daso.data.journal import Journal, journal_path

TRAIN = (
    "--train=--steps 60 --network small-4 --method supervised+la --device cpu --evaluate-every 5"
)
KEYS = itertools.count()


@dataclass
class Server:
    """A process of daso label, and a client that knows its token."""

    process: BaseProcess
    base: str
    client: httpx.Client

    def post(self, path: str, **sent: Any) -> dict[str, Any]:
        answer = self.client.post(f"/api/{path}", json={"action": f"key {next(KEYS):06}", **sent})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def state(self) -> dict[str, Any]:
        return dict(self.client.get("/api/state").json())

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first state that is wanted; the test's timeout ends the wait."""
        while not wanted(state := self.state()):
            assert self.process.exitcode is None
            assert state["training"]["state"] != "failed", state["training"]
            time.sleep(0.05)
        return state

    def kill(self) -> None:
        self.process.kill()
        finish(self.process)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Return a function that starts daso label on a folder and waits for its address."""
    running: list[Server] = []

    def begin(folder: Path, run: Callable[..., None] = command) -> Server:
        said = tmp_path / f"said-{len(running)}"
        words = ["label", folder, "--no-open", "--port", "0", "--out", tmp_path / "rounds", TRAIN]
        process = start_process(run, words, said)
        address = None
        while address is None:
            assert process.is_alive(), said.read_text()
            time.sleep(0.02)
            told = said.read_text() if said.exists() else ""
            address = re.search(r"^open (http\S+)/\?token=(\S+)$", told, re.MULTILINE)
        base, token = address.groups()
        client = httpx.Client(
            base_url=base,
            headers={"origin": base, "x-daso-token": token},
            timeout=60,
            trust_env=False,
        )
        client.get("/", params={"token": token}).raise_for_status()
        running.append(Server(process, base, client))
        return running[-1]

    yield begin
    for server in running:
        server.process.terminate()
        finish(server.process)
        server.client.close()


def endlessly(words: list[str | Path], said: Path) -> None:
    """Run a command that never ends with comparing its images."""
    from daso.label import features

    plainly = features._decoded

    def decoded(*rest: Any) -> Iterator[Any]:
        while True:
            yield from plainly(*rest)

    features._decoded = decoded
    command(words, said)


def test_ctrl_c_while_the_images_are_compared_breaks_nothing(
    start: Callable[..., Server], photos: Path, tmp_path: Path
) -> None:
    server = start(photos, endlessly)
    server.until(lambda state: state["features"]["state"] == "computing")
    server.post("assign", images=[30], label="two")
    assert server.process.pid is not None
    os.kill(server.process.pid, signal.SIGINT)
    assert finish(server.process) == 130
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".safetensors")]
    server = start(photos)
    server.until(lambda state: state["compared"])
    assert server.client.get("/api/image/30").json()["label"] == "two"


def test_a_killed_server_has_lost_no_label_and_its_training_goes_on(
    start: Callable[[Path], Server], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(photos)
    told: list[int] = []

    def label() -> None:
        try:
            for image in range(25, 140):
                server.post("assign", images=[image], label="two", action=f"image {image:04}")
                told.append(image)
                if len(told) == 100:
                    server.process.join()  # this process is slow to kill it
        except httpx.HTTPError:
            pass  # the server was killed

    labeling = threading.Thread(target=label)
    labeling.start()
    while len(told) < 20:
        time.sleep(0.01)
    server.kill()
    labeling.join()
    assert len(told) < 115

    server = start(photos)
    labels = {
        name
        for name, entry in Journal.read(journal_path(photos)).decisions().items()
        if entry.label == "two"
    }
    names = [server.client.get(f"/api/image/{image}").json()["name"] for image in told]
    assert set(names) <= labels
    assert len(labels) in (len(told), len(told) + 1)  # the last one may not have been told
    entries = Journal.read(journal_path(photos)).entries
    assert len({entry.image for entry in entries}) == len(entries)
    for image in (told[0], told[-1], told[-1] + 1):  # what was sent again, and is new or not
        server.post("assign", images=[image], label="two", action=f"image {image:04}")
    entries = Journal.read(journal_path(photos)).entries
    assert len({entry.image for entry in entries}) == len(entries) == len(told) + 1

    assert main(["label", str(photos), "--no-open"]) == 1
    assert str(server.process.pid) in capsys.readouterr().err

    server.post("train")
    run = Path(server.until(lambda state: state["training"].get("step", 0) > 0)["training"]["run"])
    server.kill()
    server = start(photos)
    server.until(lambda state: state["training"]["state"] == "done")
    server.kill()
    server = start(photos)
    state = server.state()
    assert state["training"]["state"] == "idle"
    assert state["round"] == 1
    rounds = [
        entry.details
        for entry in Journal.read(journal_path(photos)).entries
        if entry.action == "round"
    ]
    assert len(rounds) == 1
    assert rounds[0] is not None
    assert Path(rounds[0]["run"]) == run.resolve()
    assert sum(rounds[0]["labels"]) == 23 + len(told) + 1

    assert server.process.pid is not None
    os.kill(server.process.pid, signal.SIGINT)
    assert finish(server.process) == 130
