"""The page while the features of its images are computed: labeling, failure, a second try, the end."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label.conftest import Served, client_of, pixel_features
from made_files import Member, encoded, write_tar
from PIL import Image

from daso.data.labeling import open_for_labeling
from daso.errors import DataError
from daso.label.features import cached, of_patches
from daso.label.images import Embedding, Images, Progress
from daso.label.preparation import Preparation

KEYS = itertools.count()


class Gate:
    """Computes features of half the images, and of the rest when ``opened`` is set."""

    def __init__(self) -> None:
        self.opened, self.error = threading.Event(), None

    def __call__(self, images: Images, progress: Progress) -> Embedding:
        while not self.opened.is_set():
            progress(len(images) // 2, len(images))
            self.opened.wait(0.01)
        if self.error is not None:
            raise self.error
        return pixel_features(images)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the test's timeout ends the wait."""
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def served(serve: Callable[..., Served], photos: Path, gate: Gate) -> Served:
    return serve(photos, compute=gate)


@pytest.fixture
def ask(served: Served) -> Callable[..., Any]:
    """Return a function that asks as the page does and returns the answer."""
    client = client_of(served)

    def send(path: str, **sent: Any) -> Any:
        if not sent:
            return client.get(f"/api/{path}").json()
        return client.post(f"/api/{path}", json={**sent, "action": f"key {next(KEYS):08}"}).json()

    return send


def test_labeling_begins_before_the_features_are_there(
    served: Served, gate: Gate, ask: Callable[..., Any]
) -> None:
    until(lambda: ask("state")["features"].get("done"))
    state = ask("state")
    assert (state["features"]["done"], state["compared"]) == (state["images"] // 2, False)
    found = ask("suggest?count=30")["images"]
    images = [one["image"] for one in found]
    assert len(set(images)) == 30
    assert images != sorted(images)
    assert {one["kind"] for one in found} == {"any"}
    ask("assign", images=images[:3], label="two")
    ask("class", name="new")
    ask("assign", images=images[3:4], label="new")
    ask("skip", images=images[4:5])
    ask("undo", count=1)
    assert [one["image"] for one in ask("suggest?count=4")["images"]] == images[4:8]
    assert ask("similar?image=3")["images"] == ask("doubtful")["images"] == []
    assert ask("believed?label=two")["total"] == 0
    before = ask("state")["version"]
    gate.opened.set()
    until(lambda: ask("state")["compared"])
    assert ask("state")["features"] == {"state": "ready"}
    assert ask("state")["version"] > before
    assert "doubt" in {one["kind"] for one in ask("suggest?count=30")["images"]}
    assert len(ask("similar?image=3")["images"]) > 10
    assert ask(f"image/{images[0]}")["label"] == "two"
    assert len(served.labels) == 4


@pytest.mark.parametrize("error", [DataError("no image can be read; look at them"), MemoryError()])
def test_an_error_is_told_and_the_comparison_is_tried_again(
    served: Served, gate: Gate, ask: Callable[..., Any], error: Exception
) -> None:
    assert "not failed" in ask("compare", again=True)["error"]
    gate.error = error
    gate.opened.set()
    until(lambda: ask("state")["features"]["state"] == "failed")
    said = str(error) or "MemoryError"
    assert said in ask("state")["features"]["error"]
    assert said in served.told[-1]
    assert "Try again" in served.told[-1]
    assert len(ask("suggest?count=5")["images"]) == 5
    gate.error = None
    ask("compare", again=True)
    until(lambda: ask("state")["compared"])
    assert ask("state")["features"]["state"] == "ready"


def test_features_of_a_training_that_ends_meanwhile_come_later(served: Served, gate: Gate) -> None:
    taken = threading.Thread(target=served.preparation.take, args=(Path("round-1"),))
    taken.start()
    gate.opened.set()
    taken.join()
    assert served.session.wait(60)
    gate.error = DataError("the model is gone")
    with pytest.raises(DataError, match="gone"):
        served.preparation.take(Path("round-2"))
    assert served.preparation.state() == {"state": "ready"}  # the features before are still used


def test_the_end_breaks_the_computation_off_and_leaves_nothing_half_written(
    served: Served, tmp_path: Path
) -> None:
    images = Images(open_for_labeling(str(served.folder)))
    path = tmp_path / "features" / "features.safetensors"
    path.parent.mkdir()
    half = threading.Event()

    def compute(run: Path | None, progress: Progress) -> Embedding:
        def slow(done: int, total: int) -> None:
            if done:
                half.set()
                until(preparation._closed.is_set)
            progress(done, total)

        return cached(path, images, of_patches(images, slow), slow)

    preparation = Preparation(served.session, compute, pytest.fail)
    preparation.start(None)
    half.wait()
    preparation.close()
    assert not list(path.parent.iterdir())
    assert not served.session.state()["compared"]
    assert len(cached(path, images, of_patches(images)).features) == len(images)
    assert np.isfinite(cached(path, images, of_patches(images), pytest.fail).features).all()


def test_all_kinds_of_sources_are_told_what_reading_has_shown(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grey = [Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)) for _ in range(30)]
    pages = encoded(grey[0], "GIF", save_all=True, append_images=grey[1:3])
    contents = [*map(encoded, grey), pages, encoded(Image.new("RGB", (16, 16), "red"))]
    folder, shards, table = tmp_path / "photos", tmp_path / "shards", tmp_path / "table"
    members: list[Member] = []
    for number, content in enumerate(contents):
        name = f"{number:02}.{'gif' if content is pages else 'png'}"
        path = folder / "unlabeled" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        members += [(name, content), (f"{number:02}.cls", str(number % 2).encode())]
    write_tar(shards / "train-0.tar", members)
    values = {
        "image": [{"bytes": content, "path": None} for content in contents],
        "label": [number % 2 for number in range(len(contents))],
    }
    table.mkdir()
    pq.write_table(pa.table(values), table / "train-00000-of-00001.parquet")
    for source in (folder, shards, table):
        images = Images(open_for_labeling(str(source)))
        kept = tmp_path / f"{source.name}.safetensors"
        for _ in range(2):  # computed, and read
            notes = "\n".join(cached(kept, images, of_patches(images)).notes)
            assert "nearly all images are gray" in notes, source
            assert "1 file holds several frames" in notes, source
