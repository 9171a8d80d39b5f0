"""Inputs of public bug reports of other tools, which docs/tried_reports.md lists."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_files import plain_png, write_tar

from daso.data.open import open_source
from daso.errors import DataError


def png(color: int) -> bytes:
    return plain_png((color, 90, 200 - color))


def folder(root: Path, **parts: dict[str, int]) -> Path:
    color = 0
    for part, counts in parts.items():
        for name, count in counts.items():
            place = root / part / name
            place.mkdir(parents=True)
            for number in range(count):
                color += 1
                (place / f"{number}.png").write_bytes(png(color))
    return root


def shard(root: Path, names: list[str], layout: int = tarfile.PAX_FORMAT) -> Path:
    labels = [str(int(name.split(".")[0][-1]) % 2).encode() for name in names]
    members = [
        (name, label if name.endswith(".cls") else png(number))
        for number, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    write_tar(root / "train-000.tar", members, layout=layout)
    return root


def test_classes_of_folders_are_matched_by_name(tmp_path: Path) -> None:
    turns = {"0": 3, "90": 3, "180": 3, "270": 3}
    cases = {
        "an empty class": (turns, {**turns, "90": 0}, [3, 0, 3, 3]),
        "a missing class": (turns, {"0": 2, "90": 2, "270": 2}, [2, 2, 0, 2]),
        "a hidden folder": ({**turns, ".ipynb_checkpoints": 2}, turns, [3, 3, 3, 3]),
    }
    for name, (train, val, expected) in cases.items():
        source = open_source(str(folder(tmp_path / name, train=train, val=val)))
        assert source.class_names == ("0", "90", "180", "270"), name
        assert source.validation is not None
        assert np.bincount(source.validation.labels, minlength=4).tolist() == expected, name


def test_a_folder_that_an_option_names_is_not_called_unread(tmp_path: Path) -> None:
    root = folder(tmp_path, labeled={"a": 3, "b": 3}, camera={"x": 2})
    (note,) = open_source(str(root)).notes
    assert "images that are not read" in note
    for place in (root / "camera", root):
        assert not open_source(str(root), folders={"unlabeled": str(place)}).notes


def test_tables_beside_images_are_named(tmp_path: Path) -> None:
    counts = {"a": 3, "b": 3}
    for name, images in (
        ("classes", folder(tmp_path / "classes", **{"": counts})),
        ("parts", folder(tmp_path / "parts", train=counts)),
    ):
        (images / "metadata.csv").write_text("file_name,label\na/0.png,b\n")
        assert "metadata.csv" in "\n".join(open_source(str(images)).notes), name
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "0.png").write_bytes(png(0))
    (flat / "metadata.jsonl").write_text('{"file_name": "0.png", "label": "a"}\n')
    with pytest.raises(DataError, match=r"to read .*metadata\.jsonl"):
        open_source(str(flat))


def test_shards_as_other_tools_write_them(tmp_path: Path) -> None:
    keys = [f"s{number}" for number in range(4)]
    apart = [f"{key}.png" for key in keys] + [f"{key}.cls" for key in keys]
    with pytest.raises(DataError, match=r"--sort=name") as error:
        open_source(str(shard(tmp_path / "apart", apart)))
    assert "4 samples without an image of a known ending (only .cls)" in str(error.value)
    for layout in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        names = [f"{'x' * 150}{key}{ending}" for key in keys for ending in (".png", ".cls")]
        source = open_source(str(shard(tmp_path / f"layout-{layout}", names, layout)))
        assert len(source.train) == 4
    twice = shard(tmp_path / "twice", [f"{key}{e}" for key in keys for e in (".png", ".cls")])
    shutil.copy(twice / "train-000.tar", twice / "unlabeled-000.tar")
    assert len(open_source(str(twice)).unlabeled or ()) == 4  # the keys are each shard's own
    endings = (".png", ".info.json", ".png.json", ".cls")
    others = shard(tmp_path / "others", [f"{key}{ending}" for key in keys for ending in endings])
    assert len(open_source(str(others)).train) == 4
    cut = shard(tmp_path / "cut", [f"{key}{ending}" for key in keys for ending in (".png", ".cls")])
    file = cut / "train-000.tar"
    with tarfile.open(file) as archive:
        end = archive.getmembers()[-1].offset_data
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(DataError, match=r"train-000\.tar: not a readable tar file"):
        open_source(str(cut))
