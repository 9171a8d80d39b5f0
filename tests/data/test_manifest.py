"""Manifests: formats, columns, labels, parts; which files they may name; every row that is wrong, by its line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daso.data.formats.manifest import list_manifest
from daso.data.formats.manifest_rows import read_paths
from daso.data.open import open_source
from daso.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"path": "a.png", "label": "cat", "split": ""},
    {"path": "in/b.png", "label": "dog", "split": "train"},
    {"path": "in/c.png", "label": "", "split": "train"},
    {"path": "d.png", "label": "dog", "split": "unlabeled"},
    {"path": "e.png", "label": "emu", "split": "Unlabelled"},
    {"path": "f.png", "label": "cat", "split": "val"},
    {"path": "g.png", "label": "dog", "split": "test"},
    {"path": "h, i.png", "label": "dog", "split": "labeled"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, row in enumerate(ROWS):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / row["path"])
    return tmp_path


def quoted(value: str) -> str:
    return f'"{value}"' if "," in value or '"' in value else value


def write(file: Path, rows: list[dict[str, Any]], *, separator: str = ",", start: str = "") -> Path:
    lines = [
        separator.join(rows[0]),
        *(separator.join(quoted(str(v)) for v in row.values()) for row in rows),
    ]
    file.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return file


def values(file: Path, **options: Any) -> dict[str, list[tuple[int, int]]]:
    source = open_source(str(file), **options)
    pools = {part: getattr(source, part) for part in ("train", "unlabeled", "validation", "test")}
    return {
        part: list(zip(pool.images[:, 0, 0, 0].tolist(), pool.labels.tolist(), strict=True))
        for part, pool in pools.items()
        if pool is not None
    }


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


def write_as(suffix: str, folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"m{suffix}"
    if suffix == ".csv":
        return write(file, rows)
    if suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_that_reads_like_a_split_is_one(folder: Path, suffix: str) -> None:
    for name in ("set", "fold", "Usage"):
        rows = [
            {"n": str(n), **{name if key == "split" else key: value for key, value in row.items()}}
            for n, row in enumerate(ROWS)
        ]
        file = write_as(suffix, folder, rows)
        assert values(file) == EXPECTED
        notes = list_manifest(file).notes
        assert f"split from column {name!r}" in notes[0]
        assert "not used: 'n'" in notes[1]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_columns_that_may_be_splits_are_refused_and_others_named(folder: Path, suffix: str) -> None:
    plain = [{"path": "a.png", "label": "cat"}, {"path": "d.png", "label": "dog"}]
    for more, message in (
        (
            [{"set": "train", "phase": "test"}, {"set": "test", "phase": "train"}],
            "'set' and 'phase'",
        ),
        ([{"is_valid": "True"}, {"is_valid": "False"}], "'is_valid' reads like a split"),
        ([{"set": "train"}, {"set": "tset"}], "unknown split 'tset'"),
        ([{"place": "train"}, {"place": "river"}], None),
        ([{"fold": "0"}, {"fold": "1"}], None),
    ):
        file = write_as(suffix, folder, [a | b for a, b in zip(plain, more, strict=True)])
        if message is None:
            assert "not used: " in list_manifest(file).notes[1]
        else:
            with pytest.raises(DataError, match=message):
                list_manifest(file)
    rows = [{"set": "train"}, {"set": "test"}, {"set": "tset"}]
    more_rows = [*plain, {"path": "e.png", "label": "cat"}]
    file = write_as(suffix, folder, [a | b for a, b in zip(more_rows, rows, strict=True)])
    with pytest.raises(DataError, match="unknown split 'tset'"):
        list_manifest(file)


def test_rows_that_a_quote_hides_are_not_lost(folder: Path) -> None:
    file = folder / "m.csv"
    hidden = 'path,label,notes\na.png,cat,\nd.png,dog,"5" wide\ne.png,cat,\nf.png,dog,"\n'
    for content in (
        'path,label\na.png,cat\nd.png,"dog\ne.png,cat\nf.png,dog"\n',
        hidden.replace('5" wide', "5 wide"),
    ):
        file.write_text(content)
        with pytest.raises(DataError, match=r"m\.csv, line 3: has a quote"):
            list_manifest(file)
        assert [isinstance(path, str) for _, path in read_paths(file)] == [True, False]
    file.write_text('path,label,notes\na.png,cat,"two\nlines, 2.5 m, wide."\nd.png,dog,\n')
    assert len(list_manifest(file).pools["train"]) == 2


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


def test_rows_that_cannot_be_used_are_named_or_skipped(folder: Path) -> None:
    top, file = folder.parent, folder / "m.csv"
    (top / "out.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "link.png").symlink_to(top / "out.png")
    (folder / "linked").symlink_to(top)
    (folder / "inside-link.png").symlink_to(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    for row, reason in (
        ("no.png,cat,", "no file 'no.png'"),
        ("../out.png,cat,", "leads out of"),
        ("in/../../out.png,cat,", "leads out of"),
        ("{top}/out.png,cat,", "leads out of"),
        ("link.png,cat,", "leads out of"),
        ("linked/out.png,cat,", "leads out of"),
        ("/etc/passwd,cat,", "leads out of"),
        ("in,cat,", "no file 'in'"),
        (".,cat,", "no file '.'"),
        ("in\\b.png,cat,", "write / for"),
        ("pipe.png,cat,", "no file 'pipe.png'"),
        ("a.png,cat,", "names the same file as line 2"),
        ("./in/../a.png,cat,test", "names the same file as line 2"),
        ("inside-link.png,cat,", "names the same file as line 2"),
        ("a.png,,", "names the same file as line 2"),
        ("e.png,cat,other", "split 'other'"),
        ("e.png,,test", "no label"),
        ("e.png,emu,test", "class 'emu' has no labeled image"),
        ("e.png,cta,val", "Did you mean 'cat'"),
        ("e.png,cat", "has 2 fields, the first line 3"),
        ("e.png,cat,,", "has 4 fields"),
        (",cat,", "names no image"),
        ("{long},cat,", "File name too long"),
    ):
        row = row.format(top=top, long="x" * 5000)
        file.write_text(f"path,label,split\na.png,cat,\nd.png,dog,\n{row}\n")
        with pytest.raises(DataError) as caught:
            list_manifest(file)
        for words in (reason, f"{file}, line 4: ", "--skip-bad"):
            assert words in str(caught.value)
        listing = list_manifest(file, skip_bad=True)
        ((name, why),) = listing.skipped
        assert name == f"{file}, line 4"
        assert reason in why
        assert listing.pools.keys() == {"train"}
        assert len(listing.pools["train"]) == 2


def test_a_file_with_two_labels_is_left_out_altogether(folder: Path) -> None:
    rows = [("a.png", "cat"), ("d.png", "dog"), ("a.png", "dog"), ("e.png", "cat"), ("a.png", "")]
    write(folder / "m.csv", [{"path": p, "label": c} for p, c in rows])
    with pytest.raises(DataError) as caught:
        list_manifest(folder / "m.csv")
    assert "3 row(s) cannot be used" in str(caught.value)
    assert "line 2: says 'cat', but line 4 says 'dog' of the same file" in str(caught.value)
    assert "line 4: says 'dog', but line 2 says 'cat'" in str(caught.value)
    assert "line 6: has no label, but line 2 says 'cat'" in str(caught.value)
    assert values(folder / "m.csv", skip_bad=True) == {"train": [(3, 1), (4, 0)]}


def test_of_a_file_in_training_and_test_the_labeled_row_is_kept(folder: Path) -> None:
    rows = [
        ("a.png", "cat", "test"),
        ("a.png", "cat", "train"),
        ("d.png", "dog", "train"),
        ("e.png", "dog", "test"),
    ]
    write(
        folder / "m.csv", [dict(zip(("path", "label", "split"), row, strict=True)) for row in rows]
    )
    with pytest.raises(DataError, match="line 2: names the same file as line 3"):
        list_manifest(folder / "m.csv")
    assert values(folder / "m.csv", skip_bad=True) == {"train": [(0, 0), (3, 1)], "test": [(4, 1)]}


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


def test_files_that_cannot_be_read(folder: Path) -> None:
    file = folder / "m.csv"
    for content, message in (
        (b"", "first line is empty"),
        (b"\n\n", "first line is empty"),
        (b"path,label\n", "no rows"),
        (b"name,label\na.png,cat\n", "no column for the path"),
        (b"path,path,label\na.png,d.png,cat\n", "column 'path' twice"),
        (b"path,label\na.png,\nd.png,\n", "no row of a training image has a label"),
        (b"path,species\na.png,cat\n", "label; .* 'path', 'species'"),
        (b"path,label\na.png,cat\nd.png,d\xe4chs\n", "line 3: is not UTF-8"),
        ("path,label\na.png,cat\n".encode("utf-16"), "UTF-16"),
        (b"path,label\na.png,c\0t\n", "line 2: .*NUL"),
        (b'path,label\na.png,"cat\nd.png,dog\n', "line 2: unexpected end of data"),
        (b'path,label\na.png,cat\nd.png,"d"og\ne.png,cat\n', "line 3: "),
        (b'path,label\na.png,cat\nd.png,"dog\ne.png,cat\nf.png,"dog"\n', "line 3: .*line 5"),
        (b'path,label\na.png,"c"at\n', "line 2: "),
        (b"path,label\na.png," + b"x" * 200_000 + b"\n", "line 2: field larger"),
        (b"path,label\na.png," + b"x" * 2_000_000 + b"\n", "line 2: longer than"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{file}.*{message}"):
            list_manifest(file, skip_bad=True)


def test_lines_of_json_that_are_no_rows(folder: Path) -> None:
    good = '{"path": "d.png", "label": "cat"}\n{"path": "e.png", "label": "dog"}\n'
    file = folder / "m.jsonl"
    for line, reason in (
        ('{"path": "a.png" 1', "not JSON: Expecting ',' delimiter at column 18"),
        ("[" * 100_000, "not JSON"),
        ('["a.png", "cat"]', "must be an object"),
        ('{"path": 3, "label": "cat"}', "the path must be a text, found int"),
        ('{"path": null, "label": "cat"}', "names no image"),
        ('{"path": "a.png", "label": ["cat"]}', "the label must be a text, found list"),
        ('{"path": "a.png", "label": 1.5}', "label 1.5"),
        ('{"path": "a.png", "label": Infinity}', "label inf"),
        ('{"path": "a.png", "label": 1e300}', "whole number"),
        ('{"path": "a\\u0000.png", "label": "cat"}', "no file 'a\\x00.png'"),
        ('{"path": "a.png", "label": ' + "9" * 5000 + "}", "not JSON"),
    ):
        file.write_text(good + line + "\n")
        with pytest.raises(DataError, match=r"m\.jsonl, line 3: ") as caught:
            list_manifest(file)
        assert reason in str(caught.value)
        assert len(list_manifest(file, skip_bad=True).skipped) == 1
    for number in (2**60, 2**60 + 1):
        file.write_text(good + f'{{"path": "a.png", "label": {number}}}\n')
        assert list_manifest(file).class_names == (str(number), "cat", "dog")


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


def test_unreadable_images_of_a_manifest_are_named(folder: Path) -> None:
    (folder / "d.png").write_bytes(b"no image")
    write(
        folder / "m.csv",
        [
            {"path": p, "label": c}
            for p, c in (("a.png", "cat"), ("d.png", "dog"), ("e.png", "dog"))
        ],
    )
    with pytest.raises(DataError, match=r"1 image could not be read:\n.*d\.png"):
        open_source(str(folder / "m.csv"))
    source = open_source(str(folder / "m.csv"), skip_bad=True, size=4)
    assert source.train.images.shape == (2, 3, 4, 4)
    assert [name for name, _ in source.skipped] == [str(folder / "d.png")]


def test_many_rows_keep_their_order(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(300)]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(folder / "in" / name)
    order = rng.permutation(300).tolist()
    write(folder / "m.csv", [{"path": f"in/{names[i]}", "label": f"c{i % 3}"} for i in order])
    assert values(folder / "m.csv")["train"] == [(i % 256, i % 3) for i in order]
