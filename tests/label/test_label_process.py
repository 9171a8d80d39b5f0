"""``daso label`` as a process: killed and opened again, nothing is lost and nothing is there twice."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from daso.data.journal import Journal, journal_path

TRAIN = (
    "--train=--steps 60 --network small-4 --method supervised+la --device cpu --evaluate-every 5"
)
KEYS = itertools.count()


@dataclass
class Server:
    """A process of daso label, and a client that knows its token."""

    process: subprocess.Popen[str]
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
            assert self.process.poll() is None
            assert state["training"]["state"] != "failed", state["training"]
            time.sleep(0.05)
        return state

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Return a function that starts daso label on a folder and waits for its address."""
    running: list[Server] = []

    def begin(folder: Path, program: tuple[str, ...] = ("-m", "daso")) -> Server:
        command = [sys.executable, *program, "label", str(folder), "--no-open", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "rounds"), TRAIN],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if line.startswith("open http"):
                break
        else:
            pytest.fail("".join(told))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        base, _, token = line.split()[1].partition("/?token=")
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
        server.process.wait(60)
        server.client.close()


ENDLESS = """
import sys
import daso.cli, daso.label.features

plainly = daso.label.features._decoded

def endlessly(*rest):
    while True:
        yield from plainly(*rest)

daso.label.features._decoded = endlessly
sys.exit(daso.cli.main(sys.argv[1:]))
"""


def test_ctrl_c_while_the_images_are_compared_breaks_nothing(
    start: Callable[..., Server], photos: Path, tmp_path: Path
) -> None:
    server = start(photos, ("-c", ENDLESS))
    server.until(lambda state: state["features"]["state"] == "computing")
    server.post("assign", images=[30], label="two")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 130
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".safetensors")]
    server = start(photos)
    server.until(lambda state: state["compared"])
    assert server.client.get("/api/image/30").json()["label"] == "two"


def test_a_killed_server_has_lost_no_label_and_its_training_goes_on(
    start: Callable[[Path], Server], photos: Path, tmp_path: Path
) -> None:
    server = start(photos)
    told: list[int] = []

    def label() -> None:
        try:
            for image in range(25, 140):
                server.post("assign", images=[image], label="two", action=f"image {image:04}")
                told.append(image)
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

    refused = subprocess.run(
        [sys.executable, "-m", "daso", "label", str(photos), "--no-open"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert str(server.process.pid) in refused.stderr

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

    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 130
