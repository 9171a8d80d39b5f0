"""Further inputs of the kinds of fault that were found before: what they told is kept here."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
import zipfile
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


def shard(path: Path, labels: list[str], mode: str = "w", first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number, label in enumerate(labels):
            for name, content in (("png", png(pixels(first + number))), ("cls", label.encode())):
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
        (["cat ", " cat", "cat", "dog"], ("cat", "dog"), [3, 1], "1 label 'cat ': read as 'cat'"),
        (["01", "01", "1", "1"], ("01", "1"), [2, 2], "as numbers"),
        (["1e3", "1000", "2e3", "2e3"], ("1000", "1e3", "2e3"), [1, 1, 2], "as numbers"),
        (['"1,000"', "1000", '"1,000"', "7"], ("1,000", "1000", "7"), [2, 1, 1], "as numbers"),
        (["-2", "0", "1", "-2"], ("-2", "0", "1"), [2, 1, 1], "'-2' reads like a missing label"),
        (["1,0", "0,0", "-1,0", "0,0"], ("0,0", "1,0"), [2, 1], "1 are '-1,0': read as unlabeled"),
        (["=1+1", "a", "a", "=1+1"], ("=1+1", "a"), [2, 2], "'=1+1' reads like a formula"),
        (["a|b", "a", "b", "a"], ("a", "a|b", "b"), [2, 1, 1], "'a|b' joins names"),
        (["a; b", "a", "b", "a"], ("a", "a; b", "b"), [2, 1, 1], "'a; b' joins names"),
        (["a b", "a", "b", "a"], ("a", "a b", "b"), [2, 1, 1], "'a b' joins names"),
        (["hot dog + b", "hot dog", "b", "b"], ("b", "hot dog", "hot dog + b"), [2, 1, 1], "joins"),
        (["['a'; 'b']", "a", "b", "a"], ("['a'; 'b']", "a", "b"), [1, 2, 1], "joins names"),
        (["['a'; 'b']", "['a']", "b", "b"], ("['a'; 'b']", "['a']", "b"), [1, 1, 2], "joins names"),
        (["\"['a', 'c']\"", "['a']", "b", "b"], ("['a', 'c']", "['a']", "b"), [1, 1, 2], "joins"),
        (["\\N", "a", "b", "b"], ("\\N", "a", "b"), [1, 1, 2], "reads like a missing label"),
        (["(null)", "a", "b", "b"], ("(null)", "a", "b"), [1, 1, 2], "reads like a missing label"),
        (["[]", "a", "b", "b"], ("[]", "a", "b"), [1, 1, 2], "reads like a missing label"),
        (["#N/A", "EU", "EU", "#N/A"], ("#N/A", "EU"), [2, 2], "'#N/A' reads like a missing"),
        (["TBD", "a", "b", "b"], ("TBD", "a", "b"), [1, 1, 2], "'TBD' reads like a missing"),
        (["???", "a", "b", "b"], ("???", "a", "b"), [1, 1, 2], "'???' reads like a missing"),
        (["n.a.", "a", "b", "b"], ("a", "b", "n.a."), [1, 2, 1], "'n.a.' reads like a missing"),
        (["_todo", "a", "b", "b"], ("_todo", "a", "b"), [1, 1, 2], "'_todo' reads like a missing"),
        (["Unknown", "a", "b", "b"], ("Unknown", "a", "b"), [1, 1, 2], "reads like a missing"),
        (["\uff11", "1", "2", "2"], ("1", "2", "\uff11"), [1, 2, 1], "as numbers"),
        (["\u0661", "1", "2", "2"], ("1", "2", "\u0661"), [1, 2, 1], "as numbers"),
        (["1.0", "1", "cat", "cat"], ("1", "1.0", "cat"), [1, 1, 2], "as numbers"),
        (["a\t", "a\xa0", "a", "b"], ("a", "b"), [3, 1], "1 label 'a\\t': read as 'a'"),
        (["a\u200b", "a", "b", "b"], ("a", "a\u200b", "b"), [1, 1, 2], "Unicode form"),
        (['"a\nb"', "c", '"a\nb"', "c"], ("a\nb", "c"), [2, 2], "a line break"),
    ],
)
def test_labels_that_look_alike(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...], counts: list[int], told: str
) -> None:
    labels = [f'"{label}"' if label[-2:] == ",0" else label for label in labels]
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
        (lambda text: text.replace("dog\n2", "dog\r2"), "line 3: a CR"),
        (lambda text: text.encode("utf-16").decode("latin-1"), "UTF-16"),
        (lambda text: text.encode("utf-16-le").decode("latin-1"), "NUL"),
        (lambda text: text.encode("utf-32").decode("latin-1"), "UTF-32"),
        (lambda text: "sep=,\n" + text + "gone.png,cat\n", "line 7"),
        (lambda text: "[" + json.dumps({"path": "0.png", "label": "cat"}) + "]", "per line"),
    ],
)
def test_tables_as_programs_write_them(
    tmp_path: Path, change: Callable[[str], str], wanted: str | None
) -> None:
    text = change(table(tmp_path, ROWS))
    file = tmp_path / ("m.jsonl" if text.startswith("[") else "m.csv")
    file.write_text(text, encoding="utf-8" if text.isascii() else "latin-1")
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
        ("is_training_image", ["1", "1", "1", "0"]),
        ("isTrain", ["T", "T", "F", "F"]),
        ("train", ["1", "0", "1", "0"]),
        ("partition", ["0", "0", "1", "2"]),
        ("Set", ["1", "1", "2", "2"]),
        ("where", ["Train Set", "Train Set", "Test Set", "Test Set"]),
        ("where", ["train_val", "train_val", "test_2007", "test_2007"]),
        ("where", ["data/train", "data/train", "data/test", "data/test"]),
        ("where", ["trn", "learning", "tst", "held-out"]),
        ("where", ["train-clean", "dev-clean", "test-clean", "unlabelled_data"]),
        ("where", ["Training set", "Training set", "Test set", "n/a"]),
        ("where", ["fit", "holdout", "None", "excluded"]),
        ("holdout", ["0", "0", "0", "1"]),
        ("used_for_test", ["0", "0", "0", "1"]),
        ("Test set", ["n", "n", "n", "y"]),
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
    for kind in (pa.string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        rows = pa.table({"image": images, "label": ROWS, column: pa.array(values).cast(kind)})
        parquet.write_table(rows, tmp_path / "set" / "train.parquet")
        with pytest.raises(DataError, match=f"'{column}' reads like a split"):
            read(tmp_path / "set")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("fold", "0101"),
        ("is_train", "1111"),
        ("set", "1111"),
        ("is_round", "0101"),
        ("set", "1719"),
        ("invalid", "0101"),
        ("test_result", "0101"),
        ("value", "0101"),
    ],
)
def test_other_columns_of_numbers_are_no_splits(tmp_path: Path, column: str, values: str) -> None:
    labels = [f"{label},{value}" for label, value in zip(ROWS, values, strict=True)]
    (tmp_path / "m.csv").write_text(table(tmp_path, labels, f"path,label,{column}"))
    assert f"columns that are not used: '{column}'" in read(tmp_path / "m.csv")[2]


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
        shard(folder / "train-0.tar", ["0", "1"])
        with tarfile.open(folder / "train-0.tar", "a") as archive:
            for name, content in (("2.png", png(pixels(2))), *labels):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return folder

    return write


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (arrays(again=None), "'labels.npy' 2 times"),
        (rows_of_json('{"path": "0.png", "label": "cat", "label": "dog"}'), "'label' twice"),
        (rows_of_json('{"path": "0.png", "label": "cat", "Label": "dog"}'), "'label' and 'Label'"),
        (columns, "'Label' and 'label'"),
        (sample(("2.cls", b"0"), ("2.cls", b"1")), "'2.cls' has another label"),
        (sample(("2.cls", b"0"), ("2.json", b'{"label": 1}')), "'2.json' has another label"),
        (sample(("2.json", b'{"label": 1}'), ("2.cls", b"0")), "'2.cls' has another label"),
        (sample(("2.json", b'{"label": 1, "label": 0}')), "'2.json' has the name 'label' twice"),
    ],
)
def test_of_two_values_none_is_chosen_silently(
    tmp_path: Path, write: Callable[[Path], Path], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        read(write(tmp_path))


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
        ({"class_names": np.array([b"caf\xe9", b"caf\xe8", b"x"])}, "class 'x'"),
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


def test_captions_and_files_are_no_splits(tmp_path: Path) -> None:
    for text in ("a {} image", "{}/0.png"):
        parts = zip(ROWS, ("train", "test") * 2, strict=True)
        labels = [f"{label},{text.format(part)}" for label, part in parts]
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


def test_labels_mean_the_same_in_all_parts(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, (train, test, classes, expected) in enumerate(
        (
            (["1.0", "1", "cat", "cat"], ["1.0", "1.0"], ("1", "1.0", "cat"), [1, 1]),
            (["1.0", "2.0", "1.0", "2.0"], ["1", "2"], ("1", "2"), [0, 1]),
            (ROWS, ["cat ", "dog"], ("cat", "dog"), [0, 1]),
            (["caf\xe9", "b"] * 2, ["cafe\u0301", "b"], ("b", "caf\xe9"), [1, 0]),
        )
    ):
        folder = tmp_path / str(number)
        (folder / "parquet").mkdir(parents=True)
        for part, labels, first in (("train", train, 0), ("test", test, 9)):
            shard(folder / "tar" / f"{part}-0.tar", labels, first=first)
            images = [{"bytes": png(pixels(first + n)), "path": None} for n in range(len(labels))]
            written = pa.table({"image": pa.array(images), "label": labels})
            parquet.write_table(written, folder / "parquet" / f"{part}.parquet")
        rows = [f"{label},{part}" for part, of in (("", train), ("test", test)) for label in of]
        (folder / "m.csv").write_text(table(folder, rows, "path,label,split"))
        for kind in ("tar", "parquet", "m.csv"):
            source = open_source(str(folder / kind))
            assert source.test is not None
            assert (source.class_names, source.test.labels.tolist()) == (classes, expected)


def test_declared_names_mean_what_labels_mean(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for declared, classes, labels in (
        (["1.0", "2.0", "10.0"], ("1", "2", "10"), [0, 1, 2, 0, 1, 2]),
        (["None", "cat", "dog"], ("cat", "dog"), [0, 1, 0, 1]),
        (["cat ", "cat", "dog"], ("cat", "dog"), [0, 0, 1, 0, 0, 1]),
    ):
        images = pa.array([{"bytes": png(pixels(n)), "path": None} for n in range(6)])
        rows = pa.table({"image": images, "label": pa.array([0, 1, 2] * 2)})
        features = {"image": {"_type": "Image"}, "label": {"names": declared}}
        metadata = json.dumps({"info": {"features": features}})
        rows = rows.replace_schema_metadata({"huggingface": metadata})
        parquet.write_table(rows, tmp_path / "train.parquet")
        source = open_source(str(tmp_path))
        assert (source.class_names, source.train.labels.tolist()) == (classes, labels)
