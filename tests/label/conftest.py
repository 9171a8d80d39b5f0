"""Small folders of digits, and the page of daso label served in this process."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import uvicorn
from forked import popen
from PIL import Image

from daso.data.journal import Journal
from daso.data.labeling import open_for_labeling
from daso.label.images import Embedding, Images, Progress
from daso.label.preparation import Preparation
from daso.label.session import Session
from daso.label.training import Trainer
from daso.label.web.app import Api, create_app
from daso.label.web.server import bind, meant_hosts
from daso.label.web.thumbnails import Thumbnails

if TYPE_CHECKING:
    from label_page import Labeling
    from playwright.sync_api import Browser

NAMES = ("zero", "one", "two", "three", "four")
LABELED = (8, 6, 4, 3, 2)
TESTED, UNLABELED = 8, (60, 40, 30, 20, 12)
TOKEN = "token-of-the-tests-0123456789"


@pytest.fixture(autouse=True)
def _forked_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings that a page starts be forked from a process that has imported daso."""
    monkeypatch.setattr("daso.label.training.subprocess.Popen", popen)


@pytest.fixture(scope="session")
def digit_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return labeled/, unlabeled/ and test/ with digits of five classes; unlabeled names end in the digit."""
    from sklearn.datasets import load_digits

    digits, random = load_digits(), np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("digits") / "photos"
    for digit, name in enumerate(NAMES):
        rows = random.permutation(np.flatnonzero(digits.target == digit))
        ends = np.cumsum([LABELED[digit], TESTED, UNLABELED[digit]])
        for place, row in enumerate(rows[: ends[2]]):
            part = f"labeled/{name}" if place < ends[0] else f"test/{name}"
            part = part if place < ends[1] else "unlabeled"
            path = folder / part / f"{row:04}-{digit}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.uint8(digits.images[row] * 15.9)
            Image.fromarray(pixels).resize((24, 24), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def photos(digit_folders: Path, tmp_path: Path) -> Path:
    """Return a copy of the folders that a test may change."""
    return Path(shutil.copytree(digit_folders, tmp_path / "photos"))


def pixel_features(images: Images, progress: Progress = lambda done, total: None) -> Embedding:
    """Return the images' own pixels as features, which tell digits apart well enough."""
    rows = []
    for number in range(len(images)):
        progress(number, len(images))
        with Image.open(images.read(number)) as image:
            rows.append(np.asarray(image.convert("L").resize((12, 12)), dtype=np.float32).ravel())
    pixels = np.stack(rows)
    pixels -= pixels.mean(0)
    return Embedding(pixels / np.sqrt((pixels**2).mean()), "pixels")


@dataclass
class Served:
    """The page of a folder, served by a thread until ``stop``.

    Attributes:
        compute: returns features; None: the page opens when they are there.
    """

    folder: Path
    train: tuple[str, ...] = ()
    port: int = 0
    token: str = TOKEN
    compute: Callable[[Images, Progress], Embedding] | None = None
    told: list[str] = field(default_factory=list)
    journal: Journal = field(init=False)

    def start(self) -> Served:
        data = open_for_labeling(str(self.folder))
        self.journal = Journal.open(data.journal)
        images = Images(data)
        self.session = Session(data, self.journal)
        features = self.compute or pixel_features
        self.preparation = Preparation(
            self.session, lambda run, progress: features(images, progress), self.told.append
        )
        self.preparation.start(None)
        while self.compute is None and not self.session.state()["compared"]:
            time.sleep(0.01)
        known = [str(e.details["run"]) for e in self.journal.entries if e.details]

        def finished(run: Path, numbers: dict[str, object]) -> None:
            self.preparation.take(run)
            self.session.finish_round(numbers)

        arguments = (str(self.folder), *self.train)
        self.rounds = self.folder.parent / "rounds"
        self.trainer = Trainer(arguments, self.rounds, finished, known)
        listening = bind("127.0.0.1", self.port)
        self.port = listening.getsockname()[1]
        pictures = Thumbnails(images.read, images.name)
        api = Api(self.session, pictures, self.trainer, self.preparation)
        hosts = meant_hosts("127.0.0.1", self.port)
        self.app = create_app(api, self.folder.name, str(len(images)), self.token, hosts, self.port)
        options = {"log_level": "error", "lifespan": "off", "timeout_graceful_shutdown": 1}
        self._server = uvicorn.Server(uvicorn.Config(self.app, **options))
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(30)
        self.preparation.close()
        self.trainer.close()
        self.session.wait(60)
        self.journal.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def labels(self) -> dict[str, str | None]:
        """The decisions of the journal on disk."""
        return {n: e.label for n, e in Journal.read(self.journal.path).decisions().items()}


def client_of(served: Served) -> httpx.Client:
    """Return a client that asks as the page does."""
    base = f"http://127.0.0.1:{served.port}"
    client = httpx.Client(base_url=base, trust_env=False, timeout=60)
    client.headers.update({"origin": base, "x-daso-token": served.token})
    client.get("/", params={"token": served.token}).raise_for_status()
    return client


@contextlib.contextmanager
def serving() -> Iterator[Callable[..., Served]]:
    """Yield a function that serves a folder until the block ends."""
    running: list[Served] = []

    def start(folder: Path, **options: object) -> Served:
        running.append(Served(folder, **options).start())  # type: ignore[arg-type]
        return running[-1]

    try:
        yield start
    finally:
        for one in running:
            one.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Return a function that serves a folder until the test ends."""
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def served(digit_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return one server for the tests of a module."""
    with serving() as start:
        yield start(
            Path(shutil.copytree(digit_folders, tmp_path_factory.mktemp("served") / "photos"))
        )


@pytest.fixture
def visit(browser: Browser, serve: Callable[..., Served]) -> Iterator[Labeling]:
    """Return a visit, whose pages are closed before servers stop; nothing may go wrong in them."""
    from label_page import Labeling

    visit = Labeling(browser)
    yield visit
    visit.close()
    assert visit.errors == []
    assert all(address.startswith("http://127.0.0.1:") for address in visit.requests)
