"""The labels of daso label in training data: every reader, what is not used, and hold-outs."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_parquet
from label_sets import KINDS, give, label_some, write_folder, write_set
from made_files import pixels, png, write_image

from daso.data.check.report import check_data
from daso.data.images.cache import Cache
from daso.data.images.encoded import EncodedImages
from daso.data.journal import Journal
from daso.data.labeling import open_for_labeling
from daso.data.listing import Reading
from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.read_listing import decode_pools
from daso.data.source import Source
from daso.data.split import make_split
from daso.errors import DataError, OptionError

LABELS: dict[int, str | None] = {1: "fox", 2: "cat", 5: "ape", 9: None, 7: "cat", 3: "fox"}


def counts(source: Source) -> dict[str, int]:
    numbers = np.bincount(source.train.labels, minlength=len(source.class_names))
    return dict(zip(source.class_names, numbers.tolist(), strict=True))


def held(source: Source, options: SplitOptions | None = None) -> set[str]:
    split = make_split(source, options or SplitOptions(holdout=4), 3)
    assert not set(split.labeled) & set(split.holdout)
    assert len(split.labeled) + len(split.holdout) == len(source.train)
    return {source.train.digests[index].tobytes().hex() for index in split.holdout}


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_uses_the_labels(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    source = write_set(tmp_path / "data", kind)
    before = open_source(str(source))
    label_some(source, LABELS)
    label_some(source, {0: "dog", 8: None}, "train")
    now = open_source(str(source))
    assert now.class_names == ("ape", "cat", "dog", "fox")
    assert counts(now) == {"ape": 1, "cat": 7, "dog": 5, "fox": 2}
    assert now.unlabeled is not None
    assert before.unlabeled is not None
    assert now.test is not None
    # The very pixels have moved.
    moved = before.unlabeled.digests[[1, 2, 3, 5, 7]]
    assert (now.train.digests[-5:] == moved).all()
    assert (now.unlabeled.digests == before.unlabeled.digests[[0, 4, 6, 8, 10, 11]]).all()
    assert [now.class_names[label] for label in now.test.labels] == ["cat", "cat", "dog", "dog"]
    assert now.journal is not None
    assert (now.journal["labels"], now.journal["none"], now.journal["entries"]) == (6, 2, 8)
    assert any("6 labels of daso label" in note and "2 cat" in note for note in now.notes)
    without = open_source(str(source), journal=0)
    assert counts(without) == {"cat": 6, "dog": 5}
    assert without.journal is None
    first = open_source(str(source), journal=2)
    assert counts(first) == {"cat": 7, "dog": 5, "fox": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_read_one_by_one_as_in_a_pass(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    data = open_for_labeling(str(write_set(tmp_path / "data", kind)))
    for part, pool in data.pools.items():
        passed = [item for chunk in pool.chunks() for item in chunk]
        assert len(passed) == len(pool)
        order = np.random.default_rng(0).permutation(len(pool)).tolist()
        for index in order:
            assert data.read(part, index) == passed[index]
            assert len(data.checksum(part, index)) == 32
        assert data.names(part) == [data.name(part, index) for index in range(len(pool))]
        assert len(set(data.names(part))) == len(pool)
        some = pool.select(np.array([2, 0]))
        assert [item for chunk in some.chunks() for item in chunk] == [passed[0], passed[2]]
        assert list(some.all_names()) == [some.name_of(0), some.name_of(1)]
        with pytest.raises((IndexError, KeyError)):
            pool.read(len(pool))
    arrays, reasons, _ = decode_pools(data.listing, data.reading)
    assert arrays["train"].shape == (11, 3, 8, 8)
    assert not any(reasons.values())
    assert (np.asarray(arrays["unlabeled"][0]) == np.moveaxis(pixels(11), 2, 0)).all()


def test_a_moved_data_set_keeps_its_labels(tmp_path: Path) -> None:
    journal = label_some(write_folder(tmp_path / "here"), LABELS)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert not journal.exists()
    assert counts(open_source(str(tmp_path / "there")))["fox"] == 2


def test_folders_elsewhere_have_names_from_the_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    shutil.move(tmp_path / "data" / "unlabeled", tmp_path / "more")
    folders = {"unlabeled": str(tmp_path / "more")}
    data = open_for_labeling(str(tmp_path / "data"), Reading(folders=folders))
    assert data.name("unlabeled", 0) == "../more/00.png"
    with Journal.open(data.journal) as journal:
        give(journal, data, "unlabeled", 0, "fox")
    assert counts(open_source(str(tmp_path / "data"), folders=folders))["fox"] == 1


def _flat(folder: Path) -> None:
    for number in range(6):
        write_image(folder / f"{number}.png", number)


def _nested(folder: Path) -> None:
    for number in range(6):
        write_image(folder / "2026" / f"day{number % 2}" / f"{number}.png", number)


def _alone(folder: Path) -> None:
    _nested(folder / "unlabeled")


def _empty_classes(folder: Path) -> None:
    _alone(folder)
    (folder / "labeled" / "cat").mkdir(parents=True)
    (folder / "labeled" / "dog").mkdir()


def _one_empty_class(folder: Path) -> None:
    _alone(folder)
    (folder / "labeled" / "dog").mkdir(parents=True)
    write_image(folder / "labeled" / "cat" / "x.png", 50)


def _unlabeled_manifest(folder: Path) -> None:
    _flat(folder)
    rows = [f"{number}.png," for number in range(6)]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows]))


def _unlabeled_arrays(folder: Path) -> None:
    folder.mkdir()
    images = np.stack([pixels(number) for number in range(6)])
    np.savez(folder / "x.npz", images=images, labels=np.full(6, -1))


@pytest.mark.parametrize(
    ("write", "name", "known"),
    [
        (_flat, "", ()),
        (_nested, "", ()),
        (_alone, "", ()),
        (_empty_classes, "", ("cat", "dog")),
        (_one_empty_class, "", ("cat", "dog")),
        (_unlabeled_manifest, "list.csv", ()),
        (_unlabeled_arrays, "x.npz", ()),
    ],
)
def test_a_data_set_without_labels_is_labeled_and_trained(
    tmp_path: Path, write: Callable[[Path], None], name: str, known: tuple[str, ...]
) -> None:
    write(tmp_path / "photos")
    source = tmp_path / "photos" / name
    with pytest.raises(DataError):
        open_source(str(source))
    data = open_for_labeling(str(source))
    assert data.class_names == known
    assert len(data.pools["unlabeled"]) == 6
    with Journal.open(data.journal) as journal:
        give(journal, data, "unlabeled", 0, None)
        with pytest.raises(DataError, match="label"):
            open_source(str(source))
        give(journal, data, "unlabeled", 1, "dog")
        give(journal, data, "unlabeled", 2, "cat")
    now = open_source(str(source))
    assert now.class_names == ("cat", "dog")
    assert now.unlabeled is not None
    assert len(now.unlabeled) == 3
    assert not check_data(str(source)).refused
    if len(data.pools["train"]) == 0:
        # Labels that were chosen measure nothing.
        assert not held(now, SplitOptions())
        with pytest.raises(OptionError, match="chosen"):
            make_split(now, SplitOptions(holdout=2), 0)


def test_a_listed_class_that_got_no_label_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    names = ["ape", "bat", "cat", "dog"]
    folder, arrays = tmp_path / "tables", tmp_path / "x.npz"
    images = [png(pixels(number)) for number in range(5)]
    labels = [0, 3, -1, -1, -1]
    test_parquet.write(folder / "train.parquet", images, labels, names=names)
    decoded = np.stack([pixels(number) for number in range(5)])
    np.savez(arrays, images=decoded, labels=labels, class_names=names)
    for source in (folder, arrays):
        data = open_for_labeling(str(source))
        assert data.class_names == tuple(names)
        with Journal.open(data.journal) as journal:
            give(journal, data, "unlabeled", 0, "cat")
        now = open_source(str(source))
        assert now.class_names == ("ape", "cat", "dog")
        assert counts(now) == {"ape": 1, "cat": 1, "dog": 1}
        assert any("left out: 'bat'" in note for note in now.notes)


def test_an_empty_class_without_labels_is_refused_or_left_out(tmp_path: Path) -> None:
    _empty_classes(tmp_path / "photos")
    (tmp_path / "photos" / "labeled" / "emu").mkdir()
    write_image(tmp_path / "photos" / "test" / "cat" / "x.png", 60)
    write_image(tmp_path / "photos" / "test" / "emu" / "y.png", 61)
    label_some(tmp_path / "photos", {0: "cat", 1: "dog"})
    with pytest.raises(DataError, match="'emu'"):
        open_source(str(tmp_path / "photos"))
    now = open_source(str(tmp_path / "photos"), skip_bad=True)
    assert now.class_names == ("cat", "dog")
    assert now.test is not None
    assert now.test.labels.tolist() == [0]
    assert any("emu" in reason for _, reason in now.skipped)
    assert check_data(str(tmp_path / "photos")).refused


def test_test_images_of_a_new_class_are_read(tmp_path: Path) -> None:
    write_image(write_folder(tmp_path) / "test" / "fox" / "0.png", 70)
    with pytest.raises(DataError, match="fox"):
        open_source(str(tmp_path))
    label_some(tmp_path, {0: "fox"})
    now = open_source(str(tmp_path))
    assert now.test is not None
    assert now.test.labels.tolist() == [0, 0, 1, 1, 2]


def test_changed_and_missing_images_are_named_and_not_used(tmp_path: Path) -> None:
    write_folder(tmp_path)
    label_some(tmp_path, {0: "fox", 1: "fox", 2: "fox", 3: None})
    write_image(tmp_path / "unlabeled" / "00.png", 99)
    (tmp_path / "unlabeled" / "01.png").unlink()
    (tmp_path / "unlabeled" / "03.png").unlink()
    now = open_source(str(tmp_path))
    assert counts(now)["fox"] == 1
    notes = "\n".join(now.notes)
    assert "changed since ('unlabeled/00.png')" in notes
    assert "not there ('unlabeled/01.png')" in notes
    assert "03.png" not in notes
    write_image(tmp_path / "unlabeled" / "02.png", 98)
    with pytest.raises(DataError, match="fox"):
        open_source(str(tmp_path))


def test_a_label_for_a_copy_of_a_test_image_is_a_leak(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shutil.copy(tmp_path / "test" / "cat" / "00.png", tmp_path / "unlabeled" / "copy.png")
    shutil.copy(tmp_path / "labeled" / "cat" / "00.png", tmp_path / "unlabeled" / "other.png")
    names = open_for_labeling(str(tmp_path)).names("unlabeled")
    journal = label_some(tmp_path, {names.index("unlabeled/copy.png"): "cat"})
    with pytest.raises(DataError, match="also among the labeled"):
        open_source(str(tmp_path))
    report = check_data(str(tmp_path))
    assert {f.code for f in report.findings if f.level == "refused"} == {"leak"}
    assert report.class_counts["train"] == [7, 5]
    assert any("daso label" in note for note in report.notes)
    journal.unlink()
    label_some(tmp_path, {names.index("unlabeled/other.png"): "dog"})
    with pytest.raises(DataError, match="several labels"):
        open_source(str(tmp_path))


def test_holdouts_and_folds_stay_the_same_from_round_to_round(tmp_path: Path) -> None:
    write_folder(tmp_path)
    shutil.rmtree(tmp_path / "test")
    options = [SplitOptions(), SplitOptions(holdout=4)]
    options += [SplitOptions(folds=3, fold=fold) for fold in range(3)]
    first = [held(open_source(str(tmp_path)), one) for one in options]
    assert all(first)
    # Chosen images of old and of new classes, before and behind the others in the order.
    label_some(tmp_path, {0: "ape", 1: "cat", 2: "dog", 3: "zebu", 4: None})
    assert [held(open_source(str(tmp_path)), one) for one in options] == first
    # A held-out image whose class is corrected stays; one of no class is left out.
    plain = open_source(str(tmp_path))
    label_some(tmp_path, {0: "zebu", 7: "cat"}, "train")
    assert [held(open_source(str(tmp_path)), one) for one in options] == first
    label_some(tmp_path, {1: None, 9: None}, "train")
    gone = {plain.train.digests[index].tobytes().hex() for index in (1, 9)}
    last = [held(open_source(str(tmp_path)), one) for one in options]
    assert last == [of_first - gone for of_first in first]


def test_a_class_keeps_a_labeled_image_when_others_are_corrected(tmp_path: Path) -> None:
    write_folder(tmp_path)
    now = open_source(str(tmp_path))
    split = make_split(now, SplitOptions(holdout=2), 0)
    dogs = [int(index) for index in split.labeled if now.train.labels[index] == 1]
    label_some(tmp_path, dict.fromkeys(dogs, "cat"), "train")
    after = open_source(str(tmp_path))
    split = make_split(after, SplitOptions(holdout=2), 0)
    assert set(after.train.labels[split.labeled]) == {0, 1}


def test_a_long_tail_is_not_drawn_from_chosen_images(tmp_path: Path) -> None:
    label_some(write_folder(tmp_path), {0: "cat"})
    with pytest.raises(OptionError, match="no-journal"):
        make_split(open_source(str(tmp_path)), SplitOptions(labeled_head=2), 0)


def test_names_in_other_forms_and_encodings_are_found(tmp_path: Path) -> None:
    write_folder(tmp_path)
    unlabeled = bytes(tmp_path / "unlabeled")
    decomposed = unicodedata.normalize("NFD", "café <b>&$HOME.png")
    for seed, name in enumerate((b"\xe9.png", decomposed.encode(), b"a\nb.png", b' "q",.png')):
        write_image(unlabeled + b"/" + name, 80 + seed)
    names = open_for_labeling(str(tmp_path)).names("unlabeled")
    chosen = {i: "é" for i, name in enumerate(names) if not name[:-4].split("/")[-1].isdigit()}
    assert len(chosen) == 4
    label_some(tmp_path, dict(chosen))
    assert counts(open_source(str(tmp_path)))["é"] == 4
    # Another system has stored the name, and the class, in the other form.
    (tmp_path / "unlabeled" / decomposed).rename(
        tmp_path / "unlabeled" / unicodedata.normalize("NFC", decomposed)
    )
    (tmp_path / "labeled" / unicodedata.normalize("NFD", "é")).mkdir()
    now = open_source(str(tmp_path))
    assert counts(now)[unicodedata.normalize("NFD", "é")] == 4
    assert len(now.class_names) == 3


def test_undone_and_confirmed_labels(tmp_path: Path) -> None:
    write_folder(tmp_path)
    data = open_for_labeling(str(tmp_path))
    with Journal.open(data.journal) as journal:
        give(journal, data, "unlabeled", 0, "fox")
        journal.undo()
        assert open_source(str(tmp_path)).journal is None
        journal.append("skip", image=data.name("unlabeled", 1))
        journal.append("class", label="emu")
        journal.append("keep", image=data.name("train", 0), label="cat")
        assert counts(open_source(str(tmp_path))) == {"cat": 6, "dog": 5}
        give(journal, data, "unlabeled", 2, "dog")
        journal.append("keep", image=data.name("unlabeled", 2), label="dog")
    assert counts(open_source(str(tmp_path))) == {"cat": 6, "dog": 6}


def test_labels_do_not_decode_a_cache_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daso.data.images import cache as module

    plain, decoded = module.work_through, list[int]()

    def counted(images: EncodedImages, work: object, skip: object = ()) -> object:
        decoded.append(len(images))
        return plain(images, work, skip)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "work_through", counted)
    write_folder(tmp_path / "data")
    source, cache = str(tmp_path / "data"), Cache(tmp_path / "cache")
    decode_pools(open_for_labeling(source).listing, Reading(cache=cache))
    assert sorted(decoded) == [4, 11, 12]
    label_some(tmp_path / "data", LABELS)
    now = open_source(source, cache=cache)
    assert decoded[3:] == [16]  # the labeled ones; they are few
    plainly = open_source(source)
    for part in ("train", "unlabeled"):
        assert (getattr(now, part).digests == getattr(plainly, part).digests).all()
        assert (getattr(now, part).images[:] == getattr(plainly, part).images).all()


def test_a_cold_start_decodes_a_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daso.data.images import cache as module

    _flat(tmp_path / "data")
    cache = Cache(tmp_path / "cache")
    decode_pools(open_for_labeling(str(tmp_path / "data")).listing, Reading(cache=cache))
    label_some(tmp_path / "data", {0: "cat", 3: "dog"})
    monkeypatch.setattr(module, "work_through", None)
    now = open_source(str(tmp_path / "data"), cache=cache)
    assert (len(now.train), len(now.unlabeled or ())) == (2, 4)


def test_a_class_that_only_the_journal_has_is_told(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "photos", "folder")
    label_some(folder, {0: "dog"})
    assert not any("no other image" in note for note in open_source(str(folder)).notes)
    for part in ("labeled", "test"):
        (folder / part / "dog").rename(folder / part / "hound")
    source = open_source(str(folder))
    assert source.class_names == ("cat", "dog", "hound")
    assert any("no other image is of class 'dog'" in note for note in source.notes)
