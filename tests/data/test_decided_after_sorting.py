"""Files that were sorted into class folders, and what is decided or done to them afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from label_sets import label_some, write_folder
from labeled_sources import labels_of, opened, sort, tree, unlabeled_of, unsort
from made_files import write_image

from daso.data.journal import Entry, apply
from daso.data.journal.names import item_checksum
from daso.data.labeling import open_for_labeling, sort_files, sorting, unsort_files
from daso.data.open import open_source
from daso.errors import OptionError
from daso.label.decisions import NONE
from daso.label.session import Session


def decide(folder: Path, labels: dict[str, str | None]) -> None:
    """Decide images by the pixels' file names, wherever the files are; of copies, the labeled one."""
    names = open_for_labeling(str(folder)).places()
    for name, label in labels.items():
        part, index = next(at for known, at in names.items() if Path(known).name == name)
        label_some(folder, {index: label}, part)


@pytest.mark.parametrize("how", ["copy", "link", "move"])
@pytest.mark.parametrize("layout", ["parts", "flat"])
def test_what_is_decided_about_sorted_files_holds_when_they_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: sorting.How, layout: str
) -> None:
    folder = tmp_path / "photos"
    for number in range(8):
        write_image(folder / ("unlabeled" if layout == "parts" else "") / f"x{number}.png", number)
    first: dict[str, str | None] = {"x0.png": "fox", "x1.png": "fox", "x2.png": "cat"}
    later: dict[str, str | None] = {"x0.png": "cat", "x1.png": None, "x2.png": "fox"}
    later |= {"x3.png": "fox", "x4.png": None}
    decide(folder, first)
    files = tree(folder)
    sort(folder, how)
    decide(folder, later)
    expected = open_source(str(folder))
    again = shutil.copytree(folder, tmp_path / "again")
    sort(again, how)  # corrected files change their folders, too
    for place in (folder, again):
        with opened(place)[0] as journal:
            extend, calls = journal.extend, []

            def cut(*values: Any, extend: Any = extend, calls: list[int] = calls) -> list[Entry]:
                calls.append(1)
                if len(calls) > 2:
                    raise KeyboardInterrupt
                return extend(*values)  # type: ignore[no-any-return]

            monkeypatch.setattr(journal, "extend", cut)
            with pytest.raises(KeyboardInterrupt):
                unsort_files(journal, open_for_labeling(str(place)))
        with opened(place)[0] as journal:
            unsort_files(journal, open_for_labeling(str(place)))
            assert not journal.placed()
            assert len(journal.decisions()) == len(later)
        now = open_source(str(place))
        assert tree(place) == files
        assert labels_of(now) == labels_of(expected)
        assert unlabeled_of(now) == unlabeled_of(expected)
        assert not [note for note in now.notes if "not used" in note]


def test_a_sorted_file_that_is_gone_is_told(tmp_path: Path) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "fox"})
    sort(tmp_path)
    foxes = tmp_path / "labeled" / "fox"
    (foxes / "00.png").rename(foxes / "other.png")
    assert not open_source(str(tmp_path)).notes
    (foxes / "other.png").unlink()
    (note,) = open_source(str(tmp_path)).notes
    assert "1 label of daso label is not used" in note
    assert "unlabeled/00.png" in note


def test_a_lost_copy_is_sought_among_files_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox"})
    sort(tmp_path)
    (tmp_path / "labeled" / "fox" / "00.png").rename(tmp_path / "labeled" / "dog" / "moved.png")
    (tmp_path / "labeled" / "fox").rmdir()
    size = (tmp_path / "unlabeled" / "00.png").stat().st_size
    labeled = list((tmp_path / "labeled").rglob("*.png"))
    for file in labeled:
        if file.name != "moved.png" and file.stat().st_size == size:
            file.write_bytes(file.read_bytes() + b"\0")
    read: list[Path] = []

    def checksum(item: Path) -> str:
        read.append(item)
        return item_checksum(item)

    monkeypatch.setattr(apply, "item_checksum", checksum)
    source = open_source(str(tmp_path))
    assert "moved.png" in {path.name for path in read}
    assert not {path for path in read if path.stat().st_size != size}
    assert not source.notes
    assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize("again", [False, True], ids=["put back", "sorted again"])
def test_a_file_is_decided_by_its_first_name_after_it_was_sorted(
    tmp_path: Path, again: bool
) -> None:
    write_folder(tmp_path)
    files = tree(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "fox", 2: "dog", 3: "fox"})
    sort(tmp_path)
    label_some(tmp_path, {0: "cat", 1: None, 2: "cat"})
    if again:  # which moves the copies
        sort(tmp_path)
        sort(tmp_path)
        label_some(tmp_path, {2: "dog"})
    now = open_source(str(tmp_path))
    counts = [(now.train.labels == k).sum() for k in range(len(now.class_names))]
    assert now.class_names == ("cat", "dog", "fox")
    assert counts == ([7, 6, 1] if again else [8, 5, 1])
    assert now.unlabeled is not None
    assert len(now.unlabeled) == 12 - 4
    unsort(tmp_path)
    assert tree(tmp_path) == files
    assert labels_of(open_source(str(tmp_path))) == labels_of(now)


@pytest.mark.parametrize("label", ["cat", "fox", None])
def test_an_image_whose_sorted_copy_is_gone_can_be_decided_anew(
    tmp_path: Path, label: str | None
) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "fox"})
    sort(tmp_path)
    (tmp_path / "labeled" / "fox" / "00.png").unlink()
    label_some(tmp_path, {0: label})
    now = open_source(str(tmp_path))
    assert now.class_names == ("cat", "dog", "fox")
    counts = [(now.train.labels == number).sum() for number in range(3)]
    assert counts == [6 + (label == "cat"), 5, 1 + (label == "fox")]
    assert now.unlabeled is not None
    assert len(now.unlabeled) == 10
    assert not [note for note in now.notes if "not used" in note]
    journal, data = opened(tmp_path)
    with journal:
        session = Session(data, journal)
        names = [session.images.name(number) for number in range(len(session.images))]
        given = session._decisions.labels[names.index("unlabeled/00.png")]
        assert given == (NONE if label is None else session._decisions.names.index(label))
    files = tree(tmp_path)
    sort(tmp_path)
    assert len(tree(tmp_path)) == len(files) + (label is not None)
    assert labels_of(open_source(str(tmp_path))) == labels_of(now)
    unsort(tmp_path)
    assert labels_of(open_source(str(tmp_path))) == labels_of(now)


def test_the_page_decides_about_the_sorted_file(tmp_path: Path) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "fox"})
    sort(tmp_path)
    journal, data = opened(tmp_path)
    with journal:
        session = Session(data, journal)
        numbers = {session.images.name(i): i for i in range(len(session.images))}
        with pytest.raises(OptionError, match="sorted"):
            session.assign([numbers["unlabeled/00.png"]], "cat")
        session.assign([numbers["labeled/fox/00.png"]], "cat")
    assert (open_source(str(tmp_path)).train.labels == 0).sum() == 7


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_what_was_put_aside_after_sorting_stays_so(tmp_path: Path, how: sorting.How) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "fox"})
    sort(tmp_path, how)
    journal, data = opened(tmp_path)
    with journal:
        for name, actions in (("00.png", ["skip"]), ("01.png", ["label", "skip", "keep"])):
            image = f"labeled/fox/{name}"
            for action in actions:
                label = {"keep": "fox", "label": "cat"}.get(action)
                checksum = data.checksum(*data.places()[image])
                journal.append(action, image=image, checksum=checksum, label=label)
        unsort_files(journal, data)
    for _ in range(2):
        with opened(tmp_path)[0] as journal:
            about = {
                name: [one.action for one in of] for name, of in journal.about_images().items()
            }
            assert about == {
                "unlabeled/00.png": ["label", "skip"],
                "unlabeled/01.png": ["label", "label"],
            }
            assert {one.label for one in journal.decisions().values()} == {"fox"}
            sort_files(journal, open_for_labeling(str(tmp_path)), how)
            unsort_files(journal, open_for_labeling(str(tmp_path)))


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_what_a_run_saw_has_the_same_labels_after_sorting(tmp_path: Path, how: sorting.How) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "cat"})
    label_some(tmp_path, {0: "dog"}, "train")
    before = open_source(str(tmp_path))
    label_some(tmp_path, {2: "fox"})
    sort(tmp_path, how)
    now = open_source(str(tmp_path), journal=3)
    assert now.journal is not None
    assert now.journal["entries"] == 3
    third = labels_of(open_source(str(tmp_path))).items() - labels_of(before).items()
    assert labels_of(now) == labels_of(before) | dict(third)
    assert len(now.train) == len(before.train) + 1
    unsort(tmp_path)
    again = open_source(str(tmp_path), journal=3)
    assert (again.train.digests == before.train.digests).all()
    assert again.journal == before.journal
