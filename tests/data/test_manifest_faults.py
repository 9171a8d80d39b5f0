"""Manifests: which files they may name, and every row that is wrong, by its line."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from manifests import values, write, write_as, write_images

from daso.data.formats.manifest import list_manifest
from daso.data.formats.manifest_rows import read_paths
from daso.data.open import open_source
from daso.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path)


def test_columns_that_may_be_splits_are_refused_and_others_named(folder: Path) -> None:
    plain = [{"path": "a.png", "label": "cat"}, {"path": "d.png", "label": "dog"}]
    later = {"path": "e.png", "label": "cat", "set": "tset"}
    for more, message in (
        (
            [{"set": "train", "phase": "test"}, {"set": "test", "phase": "train"}],
            "'set' and 'phase'",
        ),
        ([{"is_valid": "True"}, {"is_valid": "False"}], "'is_valid' reads like a split"),
        ([{"set": "train"}, {"set": "tset"}], "unknown split 'tset'"),
        ([{"set": "train"}, {"set": "test"}, later], "unknown split 'tset'"),
        ([{"place": "train"}, {"place": "river"}], None),
        ([{"fold": "0"}, {"fold": "1"}], None),
    ):
        rows = [a | b for a, b in itertools.zip_longest(plain, more, fillvalue={})]
        for suffix in (".csv", ".jsonl", ".parquet"):
            file = write_as(suffix, folder, rows)
            if message is None:
                assert "not used: " in list_manifest(file).notes[1]
            else:
                with pytest.raises(DataError, match=message):
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
        ("in,cat,", "it is a folder"),
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
