"""Further inputs of the kinds of fault that were found before: what they told is kept here."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from label_sets import write_folder
from made_files import pixels, png, write_image, write_shard, write_tar
from small_inputs import ROWS, read, table

from daso.data.open import open_source
from daso.errors import DataError


def test_tables_as_programs_write_them(tmp_path: Path) -> None:
    changes: list[tuple[Callable[[str], str], str | None]] = [
        (lambda text: "sep=,\n" + text, None),
        (lambda text: "sep=;\n" + text.replace(",", ";"), None),
        (lambda text: text + ",\n\n,,\n", None),
        (lambda text: text.replace("\n", "\r"), "CR"),
        (lambda text: text.replace("dog\n2", "dog\r2"), "line 3: a CR"),
        (lambda text: text.encode("utf-16").decode("latin-1"), "UTF-16"),
        (lambda text: text.encode("utf-16-le").decode("latin-1"), "NUL"),
        (lambda text: text.encode("utf-32").decode("latin-1"), "UTF-32"),
        (lambda text: "sep=,\n" + text + "gone.png,cat\n", "line 7"),
        (lambda text: "[" + json.dumps({"path": "0.png", "label": "cat"}) + "]", "per line"),
    ]
    for change, wanted in changes:
        text = change(table(tmp_path, ROWS))
        file = tmp_path / ("m.jsonl" if text.startswith("[") else "m.csv")
        file.write_text(text, encoding="utf-8" if text.isascii() else "latin-1")
        if wanted is None:
            assert read(file)[:2] == (("cat", "dog"), [2, 2])
        else:
            with pytest.raises(DataError, match=wanted):
                read(file)


def arrays(**changed: object) -> Callable[[Path], Path]:
    """Return a function that writes an .npz of four images; None leaves an array out."""

    def write(folder: Path) -> Path:
        parts = {"images": np.stack([pixels(n) for n in range(4)]), "labels": np.array([0, 1] * 2)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that stands twice
            np.savez(folder / "x.npz", **parts | changed)
            if "again" in changed:
                with (
                    zipfile.ZipFile(folder / "x.npz", "a") as archive,
                    archive.open("labels.npy", "w") as file,
                ):
                    np.lib.format.write_array(file, 1 - parts["labels"])
        return folder / "x.npz"

    return write


def rows_of_json(row: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        text = table(folder, ROWS).splitlines()[1:]
        lines = [
            json.dumps(dict(zip(("path", "label"), line.split(","), strict=True))) for line in text
        ]
        (folder / "m.jsonl").write_text("\n".join([row, *lines[1:]]))
        return folder / "m.jsonl"

    return write


def columns(folder: Path) -> Path:
    (folder / "m.csv").write_text(table(folder, [f"{one},x" for one in ROWS], "path,Label,label"))
    return folder / "m.csv"


def sample(*labels: tuple[str, bytes]) -> Callable[[Path], Path]:
    """Return a function that writes a shard in which a sample has several labels."""

    def write(folder: Path) -> Path:
        write_shard(folder / "train-0.tar", ["0", "1"])
        write_tar(folder / "train-0.tar", [("2.png", png(pixels(2))), *labels], "a")
        return folder

    return write


def test_of_two_values_none_is_chosen_silently(tmp_path: Path) -> None:
    cases = (
        (arrays(again=None), "'labels.npy' 2 times"),
        (rows_of_json('{"path": "0.png", "label": "cat", "label": "dog"}'), "'label' twice"),
        (rows_of_json('{"path": "0.png", "label": "cat", "Label": "dog"}'), "'label' and 'Label'"),
        (columns, "'Label' and 'label'"),
        (sample(("2.cls", b"0"), ("2.cls", b"1")), "'2.cls' has another label"),
        (sample(("2.cls", b"0"), ("2.json", b'{"label": 1}')), "'2.json' has another label"),
        (sample(("2.json", b'{"label": 1}'), ("2.cls", b"0")), "'2.cls' has another label"),
        (sample(("2.json", b'{"label": 1, "label": 0}')), "'2.json' has the name 'label' twice"),
    )
    for number, (write, told) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(DataError, match=told):
            read(write(tmp_path / str(number)))


def test_labels_of_a_sample_that_agree_are_one(tmp_path: Path) -> None:
    for number, label in enumerate((b"0", b"0.0", b'"zero"', b"null", b"-1")):
        write = sample(("2.cls", b"0"), ("2.json", b'{"label": %s}' % label))
        (tmp_path / str(number)).mkdir()
        assert read(write(tmp_path / str(number)))[:2] == (("0", "1"), [2, 1]), label


def test_arrays_of_any_order_and_type_are_the_same_numbers(tmp_path: Path) -> None:
    images, labels = np.stack([pixels(n) for n in range(4)]), np.array([0, 1, 0, 1])
    for changed in (
        {"images": np.asfortranarray(images)},
        {"images": (images / 255).astype(">f8")},
        {"images": images[::-1][::-1], "labels": labels.astype(">i2")},
        {"labels": labels.astype(np.uint64)[:, None]},
    ):
        source = open_source(str(arrays(**changed)(tmp_path)))
        assert np.array_equal(source.train.images, images.transpose(0, 3, 1, 2))
        assert source.train.labels.tolist() == labels.tolist()
    for changed, told in (
        ({"labels": np.array([2**64 - 1, 0, 1, 0], np.uint64)}, "largest label"),
        ({"labels": np.array([255, 0, 1, 0], np.uint8)}, "largest label"),
        ({"labels": np.array(["a", None] * 2, dtype=object)}, "Python objects"),
        ({"labels": np.zeros((4, 0), int)}, "0 columns"),
        ({"images": np.zeros(4, [("pixels", np.uint8, (8, 8, 3))])}, "images must be"),
    ):
        with pytest.raises(DataError, match=told):
            read(arrays(**changed)(tmp_path))
    source = open_source(str(arrays(class_names=np.array([b"caf\xe9", b"caf\xe8"]))(tmp_path)))
    assert source.class_names == ("caf\\xe9", "caf\\xe8")


def test_columns_of_every_type_are_the_same_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = [png(pixels(n)) for n in range(4)]
    images = [{"bytes": one, "path": None} for one in content]
    texts, none = pa.array(ROWS), {"bytes": None, "path": None}
    for image, label, told in (
        (pa.array(images), texts.dictionary_encode(), None),
        (pa.array(images), texts.cast(pa.large_string()), None),
        (pa.array(content, pa.binary_view()), texts.cast(pa.string_view()), None),
        (
            pa.array(images, pa.struct({"bytes": pa.large_binary(), "path": pa.string()})),
            texts,
            None,
        ),
        (pa.array([[one] for one in images]), texts, "one image a row"),
        (pa.array(content).dictionary_encode(), texts, "one image a row"),
        (pa.array([None, *images[1:]]), texts, "row 0: the row has no image"),
        (pa.array([none, *images[1:]]), texts, "row 0: the row has no image"),
        (pa.array(images), pa.array([[one] for one in ROWS]), "integers or texts"),
    ):
        parquet.write_table(pa.table({"image": image, "label": label}), tmp_path / "train.parquet")
        if told is None:
            assert read(tmp_path)[:2] == (("cat", "dog"), [2, 2])
        else:
            with pytest.raises(DataError, match=told):
                read(tmp_path)


def test_what_storages_add_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    before = read(folder)
    for number, name in enumerate(("@eaDir", "__MACOSX", "lost+found", "#recycle", ".cache")):
        write_image(folder / "labeled" / name / "0.png", 200 + number)
        write_image(folder / "labeled" / "cat" / name / "0.png", 300 + number)
    (folder / "unlabeled" / "more").symlink_to("gone")
    (folder / "labeled" / "cat" / "self").symlink_to(".")
    after = read(folder)
    assert after[:2] == before[:2]
    assert "10 hidden folders" in after[2]
    assert "1 broken link, such as" in after[2]
    for place in ("labeled/emu", "test/emu", "val"):
        (folder / place).symlink_to("gone")
        with pytest.raises(DataError, match=rf"{place}:? is a link that leads nowhere"):
            read(folder)
        (folder / place).unlink()


def test_all_kinds_that_are_passed_over_are_one_note(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    for name in (
        "a.txt",
        "b.txt",
        "c.txt",
        "d.md",
        "e.md",
        *(f"{number}.x{number}" for number in range(25)),
    ):
        (folder / "unlabeled" / name).touch()
    (note,) = read(folder)[2].splitlines()
    assert "3 .txt files, such as" in note
    assert "2 .md files, such as" in note
    assert note.endswith("; 7 further kinds of files")


def test_what_lies_beside_the_files_that_are_read_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "shards" / "train-0.tar", ROWS)
    write_shard(tmp_path / "shards" / "val-0.tar.bz2", ROWS, "w:bz2")
    write_image(tmp_path / "shards" / "test" / "cat" / "0.png", 9)
    notes = read(tmp_path / "shards")[2]
    assert "val-0.tar.bz2" in notes
    assert "'test/'" in notes
    folder = write_folder(tmp_path / "photos")
    write_shard(folder / "unlabeled-0.tar", ROWS)
    (folder / "more.zip").touch()
    assert "not read: 'more.zip', 'unlabeled-0.tar'" in read(folder)[2]
    (folder / "labeled" / "cat" / ".DS_Store").touch()
    write_image(folder / "unlabeled" / ".trash" / "0.png", 9)
    notes = read(folder)[2]
    assert "1 hidden file," in notes
    assert "1 hidden folder," in notes
