"""Data sets as other programs leave them: what looks like something else is refused or told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_files import pixels, png, write_image, write_shard, write_tar

from daso.data.formats.folder import list_folder
from daso.data.open import open_source
from daso.errors import DataError

LABELS = ["cat", "dog", "cat", "dog"]


def write_classes(
    folder: Path, parts: Sequence[str], classes: Sequence[str] = ("cat", "dog")
) -> None:
    for number, (part, name) in enumerate((p, c) for p in parts for c in classes):
        for image in range(2):
            write_image(folder / part / name / f"{image}.png", 10 * number + image)


def table(path: Path, labels: Sequence[object], images: Sequence[bytes] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = images or [png(pixels(number)) for number in range(len(labels))]
    rows = pa.table({"image": [{"bytes": one, "path": "x"} for one in content], "label": labels})
    pytest.importorskip("pyarrow.parquet").write_table(rows, path)
    return path


def manifest(folder: Path, paths: Sequence[str]) -> Path:
    for number in range(4):
        write_image(folder / f"{number}.png", number)
    rows = [f"{path},{label}\n" for path, label in zip(paths, LABELS, strict=True)]
    (folder / "m.csv").write_text("path,label\n" + "".join(rows))
    return folder / "m.csv"


def refused(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(source))
    return str(caught.value)


def test_folders_of_parts_are_not_taken_for_classes(tmp_path: Path) -> None:
    for number, names in enumerate((("training_set", "test_set"), ("train2017", "val2017"))):
        write_classes(tmp_path / str(number), names)
        assert "look like parts" in refused(tmp_path / str(number))
        for name, part in zip(names, ("train", names[1][: 3 + (number == 0)]), strict=True):
            (tmp_path / str(number) / name).rename(tmp_path / str(number) / part)
        assert open_source(str(tmp_path / str(number))).class_names == ("cat", "dog")
    for names in (("images_train", "images_val"), ("tr", "te"), ("trainset", "testset")):
        write_classes(tmp_path / names[0], names)
        assert "look like parts" in refused(tmp_path / names[0])
    write_classes(tmp_path / "one", (".", "eval"))
    assert "'eval' holds folders that lie beside it" in refused(tmp_path / "one")
    write_classes(tmp_path / "years", ("2019", "2020"))
    (note,) = list_folder(tmp_path / "years").notes
    assert "'cat', 'dog'; the classes are the outer ones: '2019', '2020'" in note
    for outer, inner in (("pets", ("cat", "dog")), ("wild", ("fox", "owl"))):
        write_classes(tmp_path / "animals", (outer,), inner)
    (note,) = list_folder(tmp_path / "animals").notes
    assert "some of the folders 'cat', 'dog', 'fox', 'owl'; the classes are the outer" in note
    for outer, inner in (("Quercus", ("alba", "rubra")), ("Acer", ("negundo",))):  # one species
        write_classes(tmp_path / "plants", (outer,), inner)
    (note,) = list_folder(tmp_path / "plants").notes
    assert "the classes are the outer ones: 'Acer', 'Quercus'" in note
    for number, (name, inner) in enumerate((("train_station", "day"), ("test_tube", "night"))):
        write_image(tmp_path / "things" / name / inner / "0.png", number)
    assert not list_folder(tmp_path / "things").notes


def test_parts_in_the_folders_of_classes_are_refused(tmp_path: Path) -> None:
    for number, parts in enumerate(
        (("train", "test"), ("Training", "valid"), ("train", "a", "dev"))
    ):
        for where in ("", "train"):
            place = tmp_path / str(number) / (where or "plain")
            write_classes(place / where, ("cat", "dog"), parts)
            assert f"the parts {parts[0]!r} and {parts[-1]!r}" in refused(place)
    write_classes(tmp_path / "vehicles", ("car", "ship"), ("test", "drive"))
    assert list_folder(tmp_path / "vehicles").class_names == ("car", "ship")
    (tmp_path / "vehicles" / "car" / "train").mkdir()  # without an image
    assert list_folder(tmp_path / "vehicles").class_names == ("car", "ship")


def test_classes_in_a_folder_too_many_are_not_one_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ("train",))
    assert "'train', holds the folders 'cat', 'dog'" in refused(tmp_path)


def test_a_folder_too_far_up_names_the_right_one(tmp_path: Path) -> None:
    write_classes(tmp_path / "photos" / "images", (".",))
    assert str(tmp_path / "photos" / "images") in refused(tmp_path / "photos")
    assert open_source(str(tmp_path / "photos" / "images")).class_names == ("cat", "dog")


def test_tables_and_shards_in_the_folder_of_a_part_say_where_to(tmp_path: Path) -> None:
    write_shard(tmp_path / "shards" / "train" / "000.tar", LABELS)
    table(tmp_path / "tables" / "train" / "0000.parquet", LABELS)
    for folder in (tmp_path / "shards", tmp_path / "tables"):
        (file,) = (folder / "train").iterdir()
        to = folder / f"train-{file.name}"
        assert f"move it to {to}, and remove" in refused(folder)
        file.rename(to)
        (folder / "train").rmdir()
        assert open_source(str(folder)).class_names == ("cat", "dog")


def test_shards_that_are_not_read_are_counted(tmp_path: Path) -> None:
    write_classes(tmp_path, ("labeled",))
    write_shard(tmp_path / "labeled" / "cat" / "more.tar", LABELS)
    write_shard(tmp_path / "unlabeled" / "read.tar", LABELS)
    write_shard(tmp_path / "unlabeled" / "deeper" / "more.tar", LABELS)
    (note,) = list_folder(tmp_path).notes
    assert "not read: 2 .tar files" in note


def test_shards_without_an_image_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "test")):
        folder = tmp_path / str(number)
        write_shard(folder / "train-0.tar", LABELS)
        write_shard(folder / f"{part}-0.tar", LABELS, ending="jp2")
        text = refused(folder)
        assert f"no images in its {part} shards" in text
        assert "only .cls, .jp2" in text


def test_class_names_are_one_a_line_and_different(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", ["0", "1", "0", "1"])
    for names, told in (
        ("cat\n\ndog\n", "line 2 is empty"),
        ("cat\ncat\n", "several classes have the name 'cat'"),
        ("\n", "has 0 names"),
    ):
        (tmp_path / "classes.txt").write_text(names)
        assert told in refused(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-16")
    assert "classes.txt: is UTF-16" in refused(tmp_path)
    (tmp_path / "classes.txt").write_text("caf\xe9\ndog\n", encoding="latin-1")
    assert "classes.txt: cannot be read" in refused(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\r\ndog\r\n\r\n", newline="")
    assert open_source(str(tmp_path)).class_names == ("cat", "dog")
    write_shard(tmp_path / "train-0.tar", ["01", "1", "cat"])
    source = open_source(str(tmp_path))
    assert source.class_names == ("01", "1", "cat")
    assert source.notes[0] == f"{tmp_path / 'classes.txt'}: not read, as not all labels are numbers"


def test_a_label_in_a_shard_is_utf_8(tmp_path: Path) -> None:
    for number, coding in enumerate(("utf-16", "utf-32", "utf-16-le")):
        members = [(f"{number}0.png", png(pixels(0))), (f"{number}0.cls", "cat".encode(coding))]
        write_tar(tmp_path / "train-0.tar", members)
        assert f"'{number}0.cls': is UTF-16" in refused(tmp_path)


def test_minus_one_beside_a_single_class_is_explained(tmp_path: Path) -> None:
    images = np.stack([pixels(number) for number in range(4)])
    np.savez(tmp_path / "x.npz", images=images, labels=np.array([-1, 1, -1, 1]))
    assert "-1 means unlabeled" in refused(tmp_path / "x.npz")


def test_parquet_files_are_named_as_shards_are(tmp_path: Path) -> None:
    for name in ("train-0", "train_0", "train.part0"):
        table(tmp_path / name / f"{name}.parquet", LABELS)
        assert len(open_source(str(tmp_path / name)).train) == len(LABELS)


def test_no_table_is_left_out_for_its_capitals(tmp_path: Path) -> None:
    table(tmp_path / "train-0.parquet", LABELS)
    more = [png(pixels(number)) for number in range(4, 8)]
    table(tmp_path / "train-1.PARQUET", LABELS, more)
    assert len(open_source(str(tmp_path)).train) == 2 * len(LABELS)


def test_tables_of_several_versions_are_refused(tmp_path: Path) -> None:
    for number, (names, told) in enumerate(
        (
            (("train-00000-of-00001", "train-00000-of-00001-0ab1"), "several versions"),
            (("train-00000-of-00002", "train-00000-of-00002-0ab1"), "several versions"),
            (("train-00000-of-00001", "train-more"), "several versions"),
            (("train-00000-of-00002-0ab1",), "1 of 2 files"),
        )
    ):
        for name in names:
            table(tmp_path / str(number) / f"{name}.parquet", LABELS)
        assert told in refused(tmp_path / str(number))


def test_a_table_of_images_given_as_a_list_of_paths_says_how(tmp_path: Path) -> None:
    file = table(tmp_path / "mine.parquet", LABELS)
    assert str(file) in refused(tmp_path)
    text = refused(file)
    assert "holds images" in text
    assert "train.parquet" in text
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for kind in (pa.large_binary(), pa.binary_view()):
        parquet.write_table(pa.table({"image": pa.array([b"x"], kind), "label": ["a"]}), file)
        assert "holds images" in refused(file)
    table(file, LABELS)
    file.rename(tmp_path / "train.parquet")
    assert open_source(str(tmp_path)).class_names == ("cat", "dog")


def test_yes_and_no_are_labels_in_every_format(tmp_path: Path) -> None:
    values = [True, False, True, False]
    file = manifest(tmp_path, [f"{number}.png" for number in range(4)])
    rows = [{"path": f"{number}.png", "label": value} for number, value in enumerate(values)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number, value in enumerate(values):
        file.write_text(
            file.read_text().replace(f"{number}.png,{LABELS[number]}", f"{number}.png,{value}")
        )
    table(tmp_path / "tables" / "train.parquet", values)
    for source in (file, tmp_path / "m.jsonl", tmp_path / "tables"):
        opened = open_source(str(source))
        assert (opened.class_names, opened.train.labels.tolist()) == (
            ("False", "True"),
            [1, 0, 1, 0],
        )
    images = np.stack([pixels(number) for number in range(4)])
    np.savez(tmp_path / "x.npz", images=images, labels=np.array(values))
    assert open_source(str(tmp_path / "x.npz")).train.labels.tolist() == [1, 0, 1, 0]


def test_a_path_without_a_file_says_what_may_be_meant(tmp_path: Path) -> None:
    for path, told in (
        ("0.PNG", "Did you mean '0.png'"),
        ("0.png ", "Did you mean '0.png'"),
        ("'0.png'", "Did you mean '0.png'"),
        ("0", "Did you mean '0.png'"),
        ("0.dcm", "Did you mean '0.png'"),
        ("nothing.png", "no file 'nothing.png'"),
        (r"C:\photos\0.png", "path of Windows"),
        ("D:/photos/0.png", "path of Windows"),
        (r".\0.png", r"write / for \\"[:-1]),
        ("https://example.org/0.png", "fetch them"),
        ("file:///0.png", "fetch them"),
    ):
        text = refused(manifest(tmp_path, [path, "1.png", "2.png", "3.png"]))
        assert told in text
        assert ("write / for" in text) == (path == r".\0.png")


def test_a_table_without_labels_is_no_table_of_bad_rows(tmp_path: Path) -> None:
    file = manifest(tmp_path, [f"{number}.png" for number in range(4)])
    file.write_text(file.read_text().replace("cat", "").replace("dog", "nan"))
    assert "row(s)" not in refused(file)
    file.write_text(file.read_text() + "gone.png,\n")
    assert "1 row(s) cannot be used, and no other row" in refused(file)


def test_an_image_without_bytes_in_a_table_is_empty(tmp_path: Path) -> None:
    images = [b"", *(png(pixels(number)) for number in range(3))]
    table(tmp_path / "train.parquet", LABELS, images)
    assert "row 0: not a readable image" in refused(tmp_path)


def test_a_name_that_joins_a_class_and_another_is_noted(tmp_path: Path) -> None:
    for labels in (["a|b", "a", "c", "c"], ["a; x", "a", "c", "c"]):
        table(tmp_path / "train.parquet", labels)
        assert any("joins names" in note for note in open_source(str(tmp_path)).notes), labels


def test_tables_and_shards_in_folders_that_are_not_read_are_named(tmp_path: Path) -> None:
    table(tmp_path / "hub" / "train.parquet", LABELS)
    table(tmp_path / "hub" / "data" / "test.parquet", LABELS)
    table(tmp_path / "inner" / "data" / "train.parquet", LABELS)
    write_shard(tmp_path / "shards" / "train-0.tar", LABELS)
    write_shard(tmp_path / "shards" / "test" / "0.tar", LABELS)
    write_classes(tmp_path / "photos", ("train",))
    write_shard(tmp_path / "photos" / "more" / "0.tar", LABELS)
    for name, unread in (("hub", "data/"), ("shards", "test/"), ("photos", "more/"), ("inner", "")):
        notes = "\n".join(open_source(str(tmp_path / name)).notes)
        assert ("not read" in notes) == (f"'{unread}'" in notes) == bool(unread)


def test_class_names_that_mean_a_missing_label_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", ["0", "1", "0", "1"])
    (tmp_path / "classes.txt").write_text("cat\nnan\n")
    images = np.stack([pixels(number) for number in range(4)])
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0, 1], class_names=["cat", "None"])
    for source in (tmp_path, tmp_path / "x.npz"):
        assert "reads like a missing label" in refused(source)
