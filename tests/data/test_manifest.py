"""Manifests: formats, columns, labels, parts, and images elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from manifests import ROWS, values, write, write_as, write_images
from PIL import Image

from daso.data.formats.manifest import list_manifest
from daso.data.open import open_source
from daso.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path)


EXPECTED = {
    "train": [(0, 0), (1, 1), (7, 1)],
    "unlabeled": [(2, -1), (3, 1), (4, -1)],
    "validation": [(5, 0)],
    "test": [(6, 1)],
}


def test_every_format_gives_the_same(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    plain = [{key: value or None for key, value in row.items()} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(plain), folder / "m.parquet")
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, plain)) + "\n\n")
    write(folder / "m.csv", ROWS)
    write(folder / "bom.csv", ROWS, start="\ufeff")
    write(folder / "m.tsv", ROWS, separator="\t")
    write(folder / "semicolon.csv", ROWS, separator=";")
    (folder / "dos.csv").write_bytes((folder / "m.csv").read_bytes().replace(b"\n", b"\r\n"))
    for name in ("m.csv", "bom.csv", "m.tsv", "semicolon.csv", "dos.csv", "m.jsonl", "m.parquet"):
        assert values(folder / name) == EXPECTED, name
    source = open_source(str(folder / "m.csv"))
    assert source.class_names == ("cat", "dog")
    assert source.name == "m"
    assert source.train.paths[1] == str(folder / "in" / "b.png")


def test_usual_names_of_columns_and_a_note_of_what_was_taken(folder: Path) -> None:
    for columns, taken in (
        (("file_name", "class"), ("file_name", "class")),
        (("Image", " Label "), ("Image", "Label")),
        (("filename", "target"), ("filename", "target")),
        (("img", "path", "category", "label"), ("path", "label")),
    ):
        half = len(columns) // 2
        rows = [
            [path] * half + [label] * half for path, label in (("a.png", "cat"), ("d.png", "dog"))
        ]
        (folder / "m.csv").write_text("\n".join(",".join(row) for row in (columns, *rows)))
        listing = list_manifest(folder / "m.csv")
        assert listing.class_names == ("cat", "dog")
        assert f"path from column {taken[0]!r}, label from column {taken[1]!r}" in listing.notes[0]


def test_a_column_that_reads_like_a_split_is_one(folder: Path) -> None:
    for name in ("set", "fold", "Usage"):
        rows = [
            {"n": str(n), **{name if key == "split" else key: value for key, value in row.items()}}
            for n, row in enumerate(ROWS)
        ]
        for suffix in (".csv", ".jsonl", ".parquet"):
            file = write_as(suffix, folder, rows)
            assert values(file) == EXPECTED
            notes = list_manifest(file).notes
            assert f"split from column {name!r}" in notes[0]
            assert "not used: 'n'" in notes[1]


def test_what_was_read_as_a_missing_label_is_counted(folder: Path) -> None:
    rows = [
        {"path": path, "label": label}
        for path, label in (("a.png", "cat"), ("d.png", "dog"), ("e.png", "nan"), ("f.png", "nan"))
    ]
    notes = list_manifest(write(folder / "m.csv", rows)).notes
    assert any("2 are 'nan'" in note for note in notes)
    rows[2]["label"] = rows[3]["label"] = ""
    notes = list_manifest(write(folder / "m.csv", rows)).notes
    assert not any("nan" in note for note in notes)


def test_images_beside_listed_ones_are_counted(folder: Path) -> None:
    rows = [{"path": "a.png", "label": "cat"}, {"path": "d.png", "label": "dog"}]
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "0.png").write_bytes((folder / "e.png").read_bytes())
    (folder / "again.png").symlink_to("a.png")
    (note,) = list_manifest(write(folder / "m.csv", rows)).notes[1:]
    others = sorted(set(folder.glob("*.png")) - {folder / f"{n}.png" for n in ("a", "d", "again")})
    assert f"not read: {len(others)} unlisted images, such as {str(others[0])!r}" in note


def test_json_lines_may_leave_the_label_out(folder: Path) -> None:
    lines = [
        {"path": "a.png", "label": 3},
        {"path": "d.png", "label": 12},
        {"path": "e.png"},
        {"path": "f.png", "label": 12.0},
    ]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert list_manifest(folder / "m.jsonl").class_names == ("3", "12")
    assert values(folder / "m.jsonl") == {"train": [(0, 0), (3, 1), (5, 1)], "unlabeled": [(4, -1)]}


def test_labels_are_texts_and_numbers_are_in_their_order(folder: Path) -> None:
    files = ("a.png", "d.png", "e.png", "f.png")
    for labels, names, unlabeled in (
        (["10", "9", "", "-1"], ("9", "10"), 2),
        (["1.0", "2.0", "", "10.0"], ("1", "2", "10"), 1),
        (["10", "9", "x", "-1"], ("10", "9", "x"), 1),
        (["cat", "dog", "nan", "-1"], ("cat", "dog"), 2),
        (["cat", "<NA>", "None", "null"], ("cat",), 3),
        (["10", "2", "NaN", "-1.0"], ("2", "10"), 2),
        (["NA", "cat", "none", "unknown"], ("NA", "cat", "none", "unknown"), 0),
        (["1.5", "2.0", "", ""], ("1.5", "2.0"), 2),
        (["cat ", "Cat", "cat", " "], ("Cat", "cat"), 1),
        (["cat ", "Cat", "dog", " "], ("Cat", "cat ", "dog"), 1),
    ):
        rows = [{"path": path, "label": label} for path, label in zip(files, labels, strict=True)]
        listing = list_manifest(write(folder / "m.csv", rows))
        assert listing.class_names == names
        assert len(listing.pools.get("unlabeled", ())) == unlabeled


def test_images_elsewhere_are_allowed_by_name_of_their_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lists = tmp_path_factory.mktemp("lists")
    write(
        lists / "m.csv",
        [{"path": "a.png", "label": "cat"}, {"path": str(folder / "d.png"), "label": "dog"}],
    )
    with pytest.raises(DataError, match="give the folder of all images with --data"):
        open_source(str(lists / "m.csv"))
    assert values(lists / "m.csv", data=folder) == {"train": [(0, 0), (3, 1)]}
    with pytest.raises(DataError, match=r"line 2: 'a\.png' leads out of|line 2: no file 'a\.png'"):
        open_source(str(lists / "m.csv"), data=folder / "in")
    with pytest.raises(DataError, match="no such folder"):
        open_source(str(lists / "m.csv"), data=folder / "nowhere")


def test_a_linked_folder_of_images_is_the_folder_it_leads_to(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write(folder / "m.csv", [{"path": "a.png", "label": "cat"}, {"path": "d.png", "label": "dog"}])
    link = tmp_path_factory.mktemp("links") / "photos"
    link.symlink_to(folder)
    assert values(link / "m.csv") == {"train": [(0, 0), (3, 1)]}


def test_parquet_manifests(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    labels = pa.array(["cat", "dog", None]).dictionary_encode()
    table = pa.table(
        {"path": ["a.png", "d.png", "e.png"], "label": labels, "width": [1.0, 2.0, 3.0]}
    )
    pq.write_table(table, folder / "m.parquet")
    assert values(folder / "m.parquet") == {"train": [(0, 0), (3, 1)], "unlabeled": [(4, -1)]}
    pq.write_table(
        pa.table({"path": ["a.png", "no.png", "d.png"], "label": [1.0, 2.0, 3.0]}),
        folder / "m.parquet",
    )
    with pytest.raises(DataError, match=r"m\.parquet, row 1: no file"):
        list_manifest(folder / "m.parquet")
    pq.write_table(
        pa.table({"path": ["no.png", "a.png", "d.png"], "label": [1, 2, 3]}),
        folder / "m.parquet",
    )
    with pytest.raises(DataError, match=r"m\.parquet, row 0: no file"):
        list_manifest(folder / "m.parquet")
    pq.write_table(pa.table({"bytes": [b"x"], "label": [1]}), folder / "m.parquet")
    with pytest.raises(DataError, match="no column for the path; it has 'bytes', 'label'"):
        list_manifest(folder / "m.parquet")
    (folder / "m.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"m\.parquet: not a readable parquet"):
        list_manifest(folder / "m.parquet")


def test_many_rows_keep_their_order(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(300)]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(folder / "in" / name)
    order = rng.permutation(300).tolist()
    write(folder / "m.csv", [{"path": f"in/{names[i]}", "label": f"c{i % 3}"} for i in order])
    assert values(folder / "m.csv")["train"] == [(i % 256, i % 3) for i in order]
