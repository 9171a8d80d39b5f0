"""The files of daso label in the folders of their classes, and back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
from label_sets import give, label_some, write_folder
from labeled_sources import LABELS, labels_of, opened, sort, tree, unlabeled_of
from made_files import write_image

from daso.data.journal import Journal
from daso.data.labeling import (
    export_labels,
    open_for_labeling,
    placing,
    sort_files,
    sorting,
    unsort_files,
)
from daso.data.listing import Reading
from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.source import Source
from daso.data.split import make_split
from daso.errors import DataError, RunError


def flat_folder(folder: Path) -> Path:
    for number in range(4):
        write_image(folder / f"{number}.png", number)
        write_image(folder / "more" / f"{number}.png", 10 + number)
    return folder


@pytest.mark.parametrize("how", ["copy", "link", "move"])
@pytest.mark.parametrize("layout", ["parts", "flat"])
def test_sorted_files_are_the_labels_and_are_put_back(
    tmp_path: Path, how: sorting.How, layout: str
) -> None:
    source = tmp_path / "data"
    if layout == "parts":
        write_folder(source)
        label_some(source, LABELS)
        label_some(source, {0: "dog"}, "train")
    else:
        label_some(flat_folder(source), {0: "cat", 2: "dog", 5: "cat", 6: None})
    expected, files = open_source(str(source)), tree(source)
    journal, data = opened(source)
    notes = sort_files(journal, data, how)
    assert any("sorted" in note for note in notes)
    now = open_source(str(source))
    assert labels_of(now) == labels_of(expected)
    assert unlabeled_of(now) == unlabeled_of(expected)
    assert not any("not used" in note for note in now.notes)
    assert any("no file" in note for note in sort_files(journal, data, how))
    if layout == "parts":
        assert (source / "labeled" / "fox" / "01.png").is_file()
        assert not (source / "labeled" / "cat" / "00.png").exists()
        assert (source / "unlabeled" / "01.png").exists() == (how != "move")
        assert not (source / ".daso-labels.jsonl.apply").exists()
        # The page knows: nothing is to be decided again, and nothing applied is undone.
        assert journal.undo() is None
        again = open_for_labeling(str(source))
        left = set(again.names("unlabeled")) - journal.decisions().keys()
        assert len(left) == 12 - len(LABELS)
    # The folders alone say the same, but for those that are of no class.
    copied = shutil.copytree(source, tmp_path / "copy")
    (copied / "daso-labels.jsonl").unlink()
    assert labels_of(open_source(str(copied))) == labels_of(expected)
    unsort_files(journal, open_for_labeling(str(source)))
    assert tree(source) == files
    assert labels_of(open_source(str(source))) == labels_of(expected)
    assert {path.name for path in source.iterdir() if path.is_dir()} == (
        {"labeled", "unlabeled", "test"} if layout == "parts" else {"more"}
    )
    assert journal.undo() is not None


@pytest.mark.parametrize("how", ["copy", "link", "move"])
@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("undo", [False, True])
def test_a_kill_at_any_file_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: sorting.How, when: str, undo: bool
) -> None:
    write_folder(tmp_path / "data")
    label_some(tmp_path / "data", LABELS)
    label_some(tmp_path / "data", {0: "dog"}, "train")
    expected, files = labels_of(open_source(str(tmp_path / "data"))), tree(tmp_path / "data")
    whole = shutil.copytree(tmp_path / "data", tmp_path / "whole")
    sort(whole, how)
    for number in (0, 3):
        source = shutil.copytree(tmp_path / "data", tmp_path / f"{number}")
        data = open_for_labeling(str(source))
        if undo:
            with Journal.open(data.journal) as journal:
                sort_files(journal, data, how)
        with monkeypatch.context() as patch, Journal.open(data.journal) as journal:
            calls = [0]

            def killed(work: object, at: int, late: bool, calls: list[int] = calls) -> object:
                def call(*values: object, **named: object) -> object:
                    calls[0] += 1
                    if calls[0] == at + 1 and not late:
                        raise KeyboardInterrupt
                    result = work(*values, **named)  # type: ignore[operator]
                    if calls[0] == at + 1:
                        raise KeyboardInterrupt
                    return result

                return call

            if when == "between":  # a file is in its new place and still in its old one
                patch.setattr(Path, "unlink", killed(Path.unlink, number, False))
            elif when == "before":
                name = "put_back" if undo else "place"
                patch.setattr(sorting, name, killed(getattr(sorting, name), number, True))
            else:
                patch.setattr(journal, "append", killed(journal.append, number, True))
            with contextlib.suppress(KeyboardInterrupt):
                unsort_files(journal, data) if undo else sort_files(journal, data, how)
        with Journal.open(data.journal) as journal:
            if undo:
                unsort_files(journal, open_for_labeling(str(source)))
            else:
                sort_files(journal, open_for_labeling(str(source)), how)
        assert tree(source) == (files if undo else tree(whole))
        assert labels_of(open_source(str(source))) == expected
        assert not [path for path in source.rglob(".*") if path.suffix in (".apply", ".tmp")]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_image(tmp_path / "unlabeled" / "a" / "x.png", 60)
    write_image(tmp_path / "unlabeled" / "b" / "x.png", 61)
    write_image(tmp_path / "labeled" / "cat" / "x-2.png", 62)
    data = open_for_labeling(str(tmp_path))
    names = data.names("unlabeled")
    chosen = [names.index(f"unlabeled/{name}") for name in ("00.png", "a/x.png", "b/x.png")]
    label_some(tmp_path, dict.fromkeys(chosen, "cat"))
    files = tree(tmp_path)
    journal, data = opened(tmp_path)
    sort_files(journal, data, "move")
    added = tree(tmp_path).keys() - files.keys()
    assert added == {f"labeled/cat/{name}" for name in ("00-2.png", "x.png", "x-3.png")}
    assert all(tree(tmp_path)[name] == files[name] for name in files.keys() & tree(tmp_path).keys())
    assert len(open_source(str(tmp_path)).train) == 15
    unsort_files(journal, data)
    assert tree(tmp_path) == files


def test_a_file_that_is_there_already_is_kept_by_undo(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shutil.copy(tmp_path / "unlabeled" / "00.png", tmp_path / "labeled" / "cat" / "new.png")
    shutil.move(tmp_path / "unlabeled" / "00.png", tmp_path / "unlabeled" / "new.png")
    names = open_for_labeling(str(tmp_path)).names("unlabeled")
    label_some(tmp_path, {names.index("unlabeled/new.png"): "cat"})
    files = tree(tmp_path)
    for how in ("copy", "move"):
        journal, data = opened(tmp_path)
        sort_files(journal, data, how)  # type: ignore[arg-type]
        assert (tmp_path / "unlabeled" / "new.png").exists() == (how == "copy")
        unsort_files(journal, data)
        journal.close()
        assert tree(tmp_path) == files


def test_files_that_changed_since_are_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "cat", 1: "cat", 2: "cat"})
    write_image(tmp_path / "unlabeled" / "00.png", 90)
    journal, data = opened(tmp_path)
    sort_files(journal, data)
    assert not (tmp_path / "labeled" / "cat" / "00-2.png").exists()
    write_image(tmp_path / "labeled" / "cat" / "01-2.png", 91)
    (tmp_path / "unlabeled" / "02.png").unlink()
    notes = unsort_files(journal, data)
    assert any("changed since" in note for note in notes)
    assert (tmp_path / "labeled" / "cat" / "01-2.png").exists()
    assert (tmp_path / "labeled" / "cat" / "02-2.png").exists()  # the last copy of it


def test_links_move_and_names_of_any_kind(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    write_image(tmp_path / "elsewhere" / "real.png", 70)
    link = tmp_path / "data" / "unlabeled" / "link.png"
    link.symlink_to("../../elsewhere/real.png")
    write_image(bytes(tmp_path / "data" / "unlabeled") + b"/\xe9 $HOME <b>.png", 71)
    names = open_for_labeling(str(tmp_path / "data")).names("unlabeled")
    label_some(
        tmp_path / "data", {names.index("unlabeled/link.png"): "é <b>", len(names) - 1: "é <b>"}
    )
    expected = labels_of(open_source(str(tmp_path / "data")))
    journal, data = opened(tmp_path / "data")
    sort_files(journal, data, "move")
    assert not os.path.lexists(link)
    assert (tmp_path / "data" / "labeled" / "é <b>" / "link.png").is_symlink()
    assert labels_of(open_source(str(tmp_path / "data"))) == expected
    unsort_files(journal, data)
    assert link.is_symlink()
    assert link.is_file()
    assert labels_of(open_source(str(tmp_path / "data"))) == expected


def test_classes_that_cannot_be_folders_are_refused(tmp_path: Path) -> None:
    missing = ("nan", "None", "-1", "null")
    others = ("..", ".hidden", "a/b", "nul\0", "lost+found", "\u00e9" * 128)
    for number, name in enumerate((*missing, *others)):
        source = write_folder(tmp_path / str(number))
        label_some(source, {0: name if name in missing else "cat", 1: name})
        files = tree(source)
        journal, data = opened(source)
        told = "missing label" if name in missing else "folder"
        with pytest.raises(DataError, match=told):
            sort_files(journal, data)
        if name in missing:  # which a manifest would lose as well
            with pytest.raises(DataError, match=told):
                export_labels(journal, data, source / "labels.csv")
        assert tree(source) == files


def test_a_class_beside_other_class_folders_is_no_part(tmp_path: Path) -> None:
    write_folder(tmp_path)
    unlabeled = (tmp_path / "unlabeled").rename(tmp_path.with_name(f"{tmp_path.name}-more"))
    (tmp_path / "labeled" / "cat").rename(tmp_path / "cat")
    (tmp_path / "labeled" / "dog").rename(tmp_path / "dog")
    (tmp_path / "labeled").rmdir()
    shutil.rmtree(tmp_path / "test")
    data = open_for_labeling(str(tmp_path), Reading(folders={"unlabeled": str(unlabeled)}))
    with Journal.open(data.journal) as journal:
        give(journal, data, "unlabeled", 0, "test")
        with pytest.raises(DataError, match="a part of the data"):
            sort_files(journal, data)
        assert not (tmp_path / "test").exists()


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(placing.os, "link", refuse)
    for how in ("copy", "link", "move"):
        source = write_folder(tmp_path / how)
        label_some(source, LABELS)
        expected, files = labels_of(open_source(str(source))), tree(source)
        journal, data = opened(source)
        sort_files(journal, data, how)  # type: ignore[arg-type]
        assert (source / "labeled" / "fox" / "01.png").is_symlink() == (how == "link")
        assert labels_of(open_source(str(source))) == expected
        unsort_files(journal, data)
        assert tree(source) == files


def test_plans_and_journals_that_came_with_the_data_move_no_other_file(tmp_path: Path) -> None:
    for number, (image, to) in enumerate(
        (
            ("../secret.png", "labeled/cat/a.png"),
            ("/etc/passwd", "labeled/cat/a.png"),
            ("unlabeled/00.png", "../out.png"),
            ("unlabeled/00.png", "labeled/../../out.png"),
            ("unlabeled/00.png", "daso-labels.jsonl"),
            ("unlabeled/\0.png", "labeled/cat/a.png"),
        )
    ):
        check_that_nothing_is_moved(tmp_path / str(number), image, to)


def check_that_nothing_is_moved(tmp_path: Path, image: str, to: str) -> None:
    source = write_folder(tmp_path / "data")
    write_image(tmp_path / "secret.png", 11)  # as unlabeled/00.png
    data = open_for_labeling(str(source))
    checksum = data.checksum("unlabeled", 0)
    rest = {"how": "move", "created": True, "new_folder": False, "was": None}
    before = tree(tmp_path)
    with Journal.open(data.journal) as journal:
        step = {"entry": 0, "image": image, "label": None, "checksum": checksum, "to": to, **rest}
        sorting.plan_path(journal).write_text(json.dumps({"files": [step]}))
        for work in (sort_files, unsort_files):
            with pytest.raises(RunError, match="no image of"):
                work(journal, data)
        sorting.plan_path(journal).unlink()
        details = {"entry": 0, "to": to, **rest}
        journal.append("apply", image=image, checksum=checksum, details=details)
        with pytest.raises(RunError, match="no image of"):
            unsort_files(journal, data)
    assert tree(tmp_path) == before


def test_a_damaged_plan_and_a_place_taken_meanwhile(tmp_path: Path) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox"})
    journal, data = opened(tmp_path)
    sorting.plan_path(journal).write_text('{"files": [{"entry": 1}]}')
    with pytest.raises(RunError, match="remove it"):
        sort_files(journal, data)
    sorting.plan_path(journal).unlink()
    target = tmp_path / "labeled" / "fox" / "00.png"
    with pytest.MonkeyPatch.context() as patch:
        plain = sorting.place

        def taken(source: Path, place: Path, how: str, checksum: str) -> None:
            write_image(target, 95)
            plain(source, place, how, checksum)

        patch.setattr(sorting, "place", taken)
        with pytest.raises(RunError, match="another file"):
            sort_files(journal, data)
    assert (tmp_path / "unlabeled" / "00.png").exists()
    assert target.exists()


def test_sorted_files_are_never_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / "test")

    def held(source: Source) -> set[str]:
        split = make_split(source, SplitOptions(holdout=4), 1)
        return {source.train.digests[index].tobytes().hex() for index in split.holdout}

    first = held(open_source(str(tmp_path)))
    label_some(tmp_path, {0: "cat", 1: "ape", 2: "zebu"})
    label_some(tmp_path, {0: "dog", 8: "zebu"}, "train")
    journal, data = opened(tmp_path)
    for how in ("copy", "move"):
        sort_files(journal, data, how)  # type: ignore[arg-type]
        assert held(open_source(str(tmp_path))) == first
        unsort_files(journal, open_for_labeling(str(tmp_path)))
