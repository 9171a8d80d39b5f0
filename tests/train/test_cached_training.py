"""A training whose images are read from a cache as they are needed is the same one, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from daso.data.images.image_file import ImageFile
from daso.data.images.pool import FileRows, join_rows, select_rows
from daso.data.longtail import SplitOptions
from daso.files import read_json
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run

MakeFolder = Callable[..., Path]


def config(folder: Path, method: str, cache: Path | None, memory: float | None = None) -> RunConfig:
    train = TrainOptions(steps=12, batch=4, network="small-4", evaluate_every=4, device="cpu")
    options = {"generations": 3} if "crest" in method else {}
    return RunConfig(
        source=str(folder),
        method=method,
        split=SplitOptions(holdout=3),
        cache=None if cache is None else str(cache),
        memory=memory,
        method_options=options,
        train=train,
    )


def files(prepared: Prepared) -> list[str]:
    """Return the pools that are read from a file."""
    pools = ("labeled", "unlabeled", "holdout", "test")
    return [
        name
        for name in pools
        if (pool := getattr(prepared.data, name)) is not None and isinstance(pool.images, FileRows)
    ]


@pytest.mark.parametrize(
    "method",
    ["fixmatch+daso", "fixmatch+crest-plus", "fixmatch+estimate+darp", "mixmatch", "supervised"],
)
def test_a_training_from_files_is_the_same(
    method: str, make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder(val=0)
    runs = {}
    for name, cache, memory in (
        ("memory", None, None),
        ("held", "cache", None),
        ("files", "cache", 0.0),
    ):
        prepared = prepare(config(folder, method, cache and tmp_path / cache, memory))
        where = files(prepared)
        assert where == (["labeled", "unlabeled", "holdout", "test"] if name == "files" else [])
        rows = list(train_run(prepared, tmp_path / name))
        runs[name] = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    assert json.dumps(runs["memory"]) == json.dumps(runs["held"]) == json.dumps(runs["files"])
    states = {
        name: (tmp_path / name / "beliefs.safetensors").read_bytes() for name in ("memory", "files")
    }
    assert states["memory"] == states["files"]


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="the system does not list what is mapped"
)
@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_tables_with_a_row_for_each_image_are_mapped_as_well(
    make_image_folder: MakeFolder, tmp_path: Path, memory: float
) -> None:
    folder, cache = make_image_folder(val=0), tmp_path / "cache"
    mapped = []
    for method in ("fixmatch+darp", "fixmatch+crest"):
        prepared = prepare(config(folder, method, cache, memory))
        list(train_run(prepared, tmp_path / f"{method}-{memory:g}"))
        for name, tensor in prepared.tensors().items():
            if name.endswith((".guesses", ".refined", ".adopted")):
                assert len(tensor) == len(prepared.data.unlabeled)
                mapped.append(file_of(tensor))
    assert len(mapped) == 3
    assert [str(cache) in file for file in mapped] == [memory == 0] * 3
    assert not list(cache.rglob("*tmp*"))


def file_of(tensor: Tensor) -> str:
    """Return the line of the system's list that says what the tensor is mapped from."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line
    raise AssertionError("a tensor is nowhere")


def test_a_frozen_encoder_embeds_images_of_files(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder(val=0)
    vectors, beliefs = [], []
    for name, memory in (("memory", 1.0), ("files", 0.0)):
        settings = config(folder, "fixmatch+daso", tmp_path / "cache", memory)
        train = dataclasses.replace(
            settings.train,
            network=None,
            freeze=True,
            embedding_folder=str(tmp_path / name / "embeddings"),
        )
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten())
        prepared = prepare(dataclasses.replace(settings, train=train), encoder=encoder)
        assert prepared.data.unlabeled is not None
        vectors.append(prepared.data.unlabeled.images[:])
        list(train_run(prepared, tmp_path / name / "run"))
        beliefs.append((tmp_path / name / "run" / "beliefs.safetensors").read_bytes())
    assert torch.equal(*vectors)
    assert beliefs[0] == beliefs[1]


def test_a_run_from_files_resumes_and_in_memory_too(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder(val=0)
    settings = config(folder, "fixmatch+daso", tmp_path / "cache", 0.0)
    list(train_run(prepare(settings), tmp_path / "whole"))
    for name, memory in (("again", 0.0), ("held", 1.0)):
        run = tmp_path / name
        steps = iter(range(100))
        list(train_run(prepare(settings), run, stop=lambda steps=steps: next(steps) > 6))
        saved = read_json(run / "config.json")
        (run / "config.json").write_text(json.dumps({**saved, "memory": memory}))
        prepared, rows = resume_run(run)
        assert 0 < prepared.step < 12
        assert bool(files(prepared)) == (memory == 0)
        list(rows)
        weights = [
            (path / "beliefs.safetensors").read_bytes() for path in (tmp_path / "whole", run)
        ]
        assert weights[0] == weights[1]


def test_what_comes_next_is_read_by_another_thread(
    make_image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(config(make_image_folder(val=0), "fixmatch", tmp_path, 0.0))
    readers: list[str] = []
    plain = ImageFile.__getitem__

    def read(self: ImageFile, index: object) -> object:
        readers.append(threading.current_thread().name)
        return plain(self, index)

    monkeypatch.setattr(ImageFile, "__getitem__", read)
    ahead = prepared.batches._ahead
    for step in range(3 * ahead):
        prepared.batches(step)
    main = threading.main_thread().name
    assert readers.count(main) == 2  # the first batches, labeled and unlabeled
    assert len(readers) >= 6


def test_rows_in_several_places_are_indexed_as_one_tensor(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    data = prepare(config(make_image_folder(val=0), "fixmatch", tmp_path, 0.0)).data
    assert data.unlabeled is not None
    first, second = data.labeled.images[:], data.unlabeled.images
    assert isinstance(first, Tensor)
    assert isinstance(second, FileRows)
    chosen = torch.arange(len(second)) % 2 == 0
    whole = torch.cat([first, second[:][chosen]])
    joined = join_rows(first, select_rows(second, chosen))
    assert isinstance(joined, FileRows)
    assert isinstance(join_rows(first, select_rows(second[:], chosen)), Tensor)
    assert (tuple(joined.shape), joined.dim(), len(joined)) == (tuple(whole.shape), 4, len(whole))
    mask = torch.arange(len(whole)) % 3 == 1
    for index in (
        slice(None),
        slice(3, 20, 2),
        slice(0, 0),
        torch.tensor([23, 0, 0, 14, 13]),
        torch.tensor(20),
        mask,
        mask.numpy(),
        np.array([3, 22]),
        -1,
    ):
        assert torch.equal(joined[index], whole[index]), index


def test_some_rows_of_several_places_are_chosen_without_reading_any(
    make_image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(config(make_image_folder(val=0), "fixmatch", tmp_path, 0.0)).data
    assert data.unlabeled is not None
    joined = join_rows(data.labeled.images, data.unlabeled.images)
    whole, count = joined[:], len(joined)
    for index in (torch.arange(count) % 3 != 0, torch.randperm(count)[: count // 2]):
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile, "_read", lambda *_: pytest.fail("an image was read"))
            some = select_rows(joined, index)
            few = select_rows(some, torch.tensor([5, 0, -1]))
        assert torch.equal(some[:], whole[index])
        assert torch.equal(few[:], whole[index][[5, 0, -1]])
        assert torch.equal(few[1], whole[index][0])
        assert torch.equal(few[torch.tensor([-1, 1])], whole[index][[-1, 0]])
        assert tuple(few.shape) == (3, *whole.shape[1:])
        assert torch.equal(join_rows(few, some)[2:5], torch.cat([few[:], some[:]])[2:5])
