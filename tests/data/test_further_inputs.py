"""Further inputs of the kinds of fault that were found before: what they told is kept here."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_sets import pixels, png, write_folder, write_image

from daso.data.open import open_source
from daso.errors import DataError

ROWS = ["cat", "dog", "cat", "dog"]


def table(folder: Path, labels: list[str], header: str = "path,label") -> str:
    """Return a CSV of images, which are written too."""
    for number in range(len(labels)):
        write_image(folder / f"{number}.png", number)
    return "\n".join([header, *(f"{n}.png,{label}" for n, label in enumerate(labels))]) + "\n"


def shard(path: Path, labels: list[str], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number, label in enumerate(labels):
            for name, content in (("png", png(pixels(number))), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def read(source: Path) -> tuple[tuple[str, ...], list[int], str]:
    """Return classes, images of each, and notes."""
    opened = open_source(str(source))
    counts = np.bincount(opened.train.labels, minlength=len(opened.class_names))
    return opened.class_names, counts.tolist(), "\n".join(opened.notes)


@pytest.mark.parametrize(
    ("labels", "classes", "counts", "told"),
    [
        (["cat ", " cat", "cat", "dog"], ("cat", "dog"), [3, 1], "labels 'cat ': read as 'cat'"),
        (["01", "01", "1", "1"], ("01", "1"), [2, 2], "as numbers"),
        (["1e3", "1000", "2e3", "2e3"], ("1000", "1e3", "2e3"), [1, 1, 2], "as numbers"),
        (['"1,000"', "1000", '"1,000"', "7"], ("1,000", "1000", "7"), [2, 1, 1], "as numbers"),
        (["-2", "0", "1", "-2"], ("-2", "0", "1"), [2, 1, 1], "'-2' reads like a missing label"),
        (["a|b", "a", "b", "a"], ("a", "a|b", "b"), [2, 1, 1], "'a|b' joins names"),
        (["a; b", "a", "b", "a"], ("a", "a; b", "b"), [2, 1, 1], "'a; b' joins names"),
        (["#N/A", "EU", "EU", "#N/A"], ("#N/A", "EU"), [2, 2], "'#N/A' reads like a missing"),
    ],
)
def test_labels_that_look_alike(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...], counts: list[int], told: str
) -> None:
    (tmp_path / "m.csv").write_text(table(tmp_path, labels))
    found = read(tmp_path / "m.csv")
    assert found[:2] == (classes, counts)
    assert told in found[2]


def test_numbers_in_shards_are_those_of_manifests(tmp_path: Path) -> None:
    for name, labels, classes in (
        ("zeros", ["01", "1", "01", "1"], ("01", "1")),
        ("floats", ["0.0", "1.0", "0", "1"], ("0", "1")),
        ("gaps", ["2", "10", "2", "10"], None),
    ):
        shard(tmp_path / name / "train-0.tar", labels)
        if classes is None:
            with pytest.raises(DataError, match="number the classes"):
                read(tmp_path / name)
            continue
        assert read(tmp_path / name)[:2] == (classes, [2, 2]), name
    (tmp_path / "zeros" / "classes.txt").write_text("no\nyes\n")
    with pytest.raises(DataError, match="'no'"):
        read(tmp_path / "zeros")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda text: "sep=,\n" + text, None),
        (lambda text: "sep=;\n" + text.replace(",", ";"), None),
        (lambda text: text + ",\n\n,,\n", None),
        (lambda text: text.replace("\n", "\r"), "CR"),
        (lambda text: "sep=,\n" + text + "gone.png,cat\n", "line 7"),
        (lambda text: "[" + json.dumps({"path": "0.png", "label": "cat"}) + "]", "per line"),
    ],
)
def test_tables_as_programs_write_them(
    tmp_path: Path, change: Callable[[str], str], wanted: str | None
) -> None:
    text = change(table(tmp_path, ROWS))
    file = tmp_path / ("m.jsonl" if text.startswith("[") else "m.csv")
    file.write_text(text)
    if wanted is None:
        assert read(file)[:2] == (("cat", "dog"), [2, 2])
    else:
        with pytest.raises(DataError, match=wanted):
            read(file)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("Usage", ["Training", "Training", "PublicTest", "PrivateTest"]),
        ("phase", ["tr", "tr", "te", "te"]),
        ("where", ["train1", "train2", "holdout", "holdout"]),
        ("is_valid", ["no", "no", "no", "yes"]),
    ],
)
def test_test_images_are_never_trained_on(tmp_path: Path, column: str, values: list[str]) -> None:
    labels = [f"{label},{value}" for label, value in zip(ROWS, values, strict=True)]
    (tmp_path / "m.csv").write_text(table(tmp_path, labels, f"path,label,{column}"))
    with pytest.raises(DataError, match="split"):
        read(tmp_path / "m.csv")
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = pa.array([{"bytes": png(pixels(n)), "path": None} for n in range(4)])
    (tmp_path / "set").mkdir()
    rows = pa.table({"image": images, "label": ROWS, column: values})
    parquet.write_table(rows, tmp_path / "set" / "train.parquet")
    with pytest.raises(DataError, match=f"'{column}' reads like a split"):
        read(tmp_path / "set")


def test_captions_are_no_splits(tmp_path: Path) -> None:
    labels = [
        f"{label},a {name} image" for label, name in zip(ROWS, ("train", "test") * 2, strict=True)
    ]
    (tmp_path / "m.csv").write_text(table(tmp_path, labels, "path,label,caption"))
    assert "not used: 'caption'" in read(tmp_path / "m.csv")[2]


def test_what_lies_beside_the_files_that_are_read_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "shards" / "train-0.tar", ROWS)
    shard(tmp_path / "shards" / "val-0.tar.bz2", ROWS, "w:bz2")
    write_image(tmp_path / "shards" / "test" / "cat" / "0.png", 9)
    notes = read(tmp_path / "shards")[2]
    assert "val-0.tar.bz2" in notes
    assert "'test/'" in notes
    folder = write_folder(tmp_path / "photos")
    shard(folder / "unlabeled-0.tar", ROWS)
    (folder / "more.zip").touch()
    assert "not read: 'more.zip', 'unlabeled-0.tar'" in read(folder)[2]
    (folder / "labeled" / "cat" / ".DS_Store").touch()
    write_image(folder / "unlabeled" / ".trash" / "0.png", 9)
    notes = read(folder)[2]
    assert "1 hidden file," in notes
    assert "1 hidden folder," in notes
