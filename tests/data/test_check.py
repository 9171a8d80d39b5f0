"""The report on a data set: everything that is wrong with it is found, under the right name, and only that."""

from __future__ import annotations

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import plain_png
from PIL import Image

from daso.data.check.findings import Finding
from daso.data.check.report import Report, check_data
from daso.data.duplicates import find_copies
from daso.data.listing import Reading
from daso.data.open import open_source
from daso.errors import DataError


def picture(
    path: Path, seed: int | None = None, size: tuple[int, int] = (40, 40), mode: str = "RGB"
) -> Path:
    """Write an image whose coarse structure is random: no two look the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-3:]).encode()) if seed is None else seed
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("cat", 12), ("dog", 6)):
        for index in range(count):
            picture(tmp_path / "labeled" / name / f"{index}.png")
        for index in range(3):
            picture(tmp_path / "test" / name / f"{index}.png")
    for index in range(8):
        picture(tmp_path / "unlabeled" / f"{index}.png")
    return tmp_path


def found(report: Report) -> dict[str, Finding]:
    assert len({finding.code for finding in report.findings}) == len(report.findings)
    return {finding.code: finding for finding in report.findings}


def codes(report: Report) -> dict[str, str]:
    return {finding.code: finding.level for finding in report.findings}


def test_clean_data_has_no_findings(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check_data(str(folder), progress=lambda done, total: seen.append((done, total)))
    assert codes(report) == {}
    assert not report.refused
    assert dict(report.counts) == {"train": 18, "unlabeled": 8, "test": 6}
    assert report.class_counts == {"train": [12, 6], "test": [3, 3]}
    assert report.imbalance == 2
    assert report.shape == (3, 40, 40)
    assert (report.widths, report.sizes) == ((40, 40, 40), 1)
    assert seen == [(done, 32) for done in range(1, 33)]


def breakages() -> dict[str, tuple[Any, dict[str, str]]]:
    def cut(path: Path) -> None:
        content = picture(path).read_bytes()
        path.write_bytes(content[: len(content) // 2])

    def leak(folder: Path) -> None:
        Image.open(folder / "labeled/cat/3.png").save(folder / "test/cat/leak.bmp")

    def conflict(folder: Path) -> None:
        Image.open(folder / "labeled/cat/3.png").save(folder / "labeled/dog/same.png")

    def near(folder: Path, into: str) -> None:
        Image.open(folder / "labeled/cat/3.png").save(folder / into, quality=85)

    def wide(folder: Path) -> None:
        for path in list(folder.rglob("*.png")):
            picture(path, size=(48, 40))
        picture(folder / "labeled/cat/wide.png", size=(130, 40))

    def several(path: Path) -> None:
        frames = [Image.open(picture(path, seed)).copy() for seed in (91, 92, 93)]
        frames[0].save(path, save_all=True, append_images=frames[1:])

    def grey(folder: Path) -> None:
        for path in (folder / "unlabeled").glob("*.png"):
            picture(path, mode="L")

    return {
        "unreadable": (lambda f: cut(f / "unlabeled/cut.png"), {"unreadable": "refused"}),
        "leak": (leak, {"leak": "refused"}),
        "conflict": (conflict, {"conflict": "refused", "copies-labeled": "warning"}),
        "near leak": (lambda f: near(f, "test/cat/near.jpg"), {"near-leak": "warning"}),
        "near conflict": (
            lambda f: near(f, "labeled/dog/near.jpg"),
            {"near-conflict": "warning", "near-labeled-labeled": "note"},
        ),
        "unlabeled test": (
            lambda f: picture(f / "unlabeled/x.png", zlib.crc32(b"test/cat/0.png")),
            {"leak-unlabeled": "warning"},
        ),
        "unlabeled twice": (
            lambda f: [picture(f / f"unlabeled/{n}.png", 5) for n in "ab"],
            {"copies-unlabeled": "note"},
        ),
        "validation leak": (
            lambda f: picture(f / "val/cat/x.png", zlib.crc32(b"labeled/cat/0.png")),
            {"leak-validation": "warning", "unmeasured-validation": "warning"},
        ),
        "wrong test": (
            lambda f: picture(f / "test/dog/x.png", zlib.crc32(b"test/cat/0.png")),
            {"test-conflict": "warning", "copies-test": "note"},
        ),
        "names": (
            lambda f: [picture(f / "labeled/Cat" / f"{n}.png") for n in range(6)],
            {"alike-names": "warning", "unmeasured-test": "warning"},
        ),
        "a name that nobody sees": (
            lambda f: [picture(f / "labeled/\u3164" / f"{n}.png") for n in range(6)],
            {"unseen-name": "warning", "unmeasured-test": "warning"},
        ),
        "a name that is a formula": (
            lambda f: [picture(f / "labeled/=1+1" / f"{n}.png") for n in range(6)],
            {"formula-name": "warning", "unmeasured-test": "warning"},
        ),
        "a name that joins two": (
            lambda f: [picture(f / "labeled/cat;dog" / f"{n}.png") for n in range(6)],
            {"joined-names": "warning", "unmeasured-test": "warning"},
        ),
        "a class that is only tested": (
            lambda f: picture(f / "test/emu/0.png"),
            {"rows": "refused"},
        ),
        "an empty class": (lambda f: (f / "labeled/emu").mkdir(), {"rows": "refused"}),
        "an image without a class": (lambda f: picture(f / "labeled/x.png"), {"rows": "refused"}),
        "an empty part": (lambda f: (f / "val/cat").mkdir(parents=True), {"rows": "refused"}),
        "a link to nowhere": (
            lambda f: (f / "unlabeled/x.png").symlink_to(f / "gone.png"),
            {"unreadable": "refused"},
        ),
        "single": (
            lambda f: [picture(f / "labeled/emu/0.png"), picture(f / "test/emu/0.png")],
            {"single": "warning"},
        ),
        "a link to no class": (
            lambda f: (f / "labeled/emu").symlink_to(f / "gone"),
            {"rows": "refused"},
        ),
        **{
            f"several images in one {ending}": (
                partial(lambda f, ending: several(f / f"unlabeled/x.{ending}"), ending=ending),
                {"frames": "warning"},
            )
            for ending in ("gif", "webp", "png", "tif", "avif")
        },
        "small": (lambda f: picture(f / "unlabeled/x.png", size=(12, 12)), {"small": "warning"}),
        "long": (wide, {"long": "warning"}),
        "grey": (grey, {"grey": "warning"}),
        "some gray": (lambda f: picture(f / "labeled/cat/g.png", mode="L"), {"grey": "note"}),
    }


@pytest.mark.parametrize("name", list(breakages()))
def test_what_is_wrong_is_found_and_nothing_else(folder: Path, name: str) -> None:
    damage, expected = breakages()[name]
    damage(folder)
    report = check_data(str(folder))
    assert codes(report) == expected
    refuses = "refused" in expected.values()
    assert report.refused == refuses
    if refuses:
        with pytest.raises(DataError):
            open_source(str(folder))
    else:
        open_source(str(folder))
    open_source(str(folder), skip_bad=True)


def test_images_are_named_with_what_they_are_copies_of(folder: Path) -> None:
    (folder / "test/cat/leak.png").write_bytes((folder / "labeled/cat/3.png").read_bytes())
    Image.open(folder / "labeled/cat/4.png").save(folder / "test/cat/other.bmp")
    leak = found(check_data(str(folder)))["leak"]
    assert leak.images == (
        (str(folder / "test/cat/leak.png"), f"the same file as {folder / 'labeled/cat/3.png'}"),
        (str(folder / "test/cat/other.bmp"), f"the same pixels as {folder / 'labeled/cat/4.png'}"),
    )
    assert "1 of them byte for byte" in leak.text


def test_without_test_images_rare_classes_are_not_measured(folder: Path) -> None:
    for path in (folder / "test").rglob("*.png"):
        path.unlink()
    for name in ("test/cat", "test/dog", "test"):
        (folder / name).rmdir()
    for index in range(3):
        picture(folder / "labeled/emu" / f"{index}.png")
    few = found(check_data(str(folder)))["few"]
    assert (few.level, "'emu'" in few.text, "'dog'" in few.text) == ("warning", True, False)


def test_a_class_without_a_readable_image_is_refused(folder: Path) -> None:
    for path in (folder / "labeled/dog").glob("*.png"):
        path.write_bytes(b"no image")
    assert codes(check_data(str(folder))) == {"unreadable": "refused", "empty-class": "refused"}


def test_every_unreadable_file_is_named(folder: Path) -> None:
    for index in range(60):
        (folder / "unlabeled" / f"bad{index:02}.jpg").write_bytes(b"no image")
    names = [Path(name).name for name, _ in found(check_data(str(folder)))["unreadable"].images]
    assert names == [f"bad{index:02}.jpg" for index in range(60)]


def test_manifests_and_their_rows(folder: Path) -> None:
    rows = [
        "path,label,split",
        "labeled/cat/0.png,cat,",
        "labeled/dog/0.png,dog,",
        "no.png,cat,",
        "test/cat/0.png,emu,test",
    ]
    (folder / "m.csv").write_text("\n".join(rows))
    report = check_data(str(folder / "m.csv"))
    assert found(report)["rows"].level == "refused"
    assert [name.rpartition(", ")[2] for name, _ in found(report)["rows"].images] == [
        "line 4",
        "line 5",
    ]
    assert report.notes[0].endswith("split from column 'split'")


def test_sizes_are_those_that_training_takes(folder: Path) -> None:
    picture(folder / "unlabeled" / "large.png", size=(100, 70))
    report = check_data(str(folder))
    assert (report.widths, report.heights, report.sizes) == ((40, 40, 100), (40, 40, 70), 2)
    assert report.shape == (3, 40, 40) == open_source(str(folder)).train.images.shape[1:]
    assert check_data(str(folder), Reading(24)).shape == (3, 24, 24)


def test_arrays_and_named_sources(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 16, 16), dtype=np.uint8)
    labels = np.arange(20) % 2
    np.savez(
        tmp_path / "a.npz",
        images=images,
        labels=labels,
        test_images=images[:4],
        test_labels=labels[:4],
    )
    report = check_data(str(tmp_path / "a.npz"))
    assert found(report)["leak"].images[0] == ("test image 0", "the same pixels as train image 0")
    assert report.refused
    digits = check_data("digits")
    assert not digits.refused
    assert digits.counts["test"] == 445


def test_parquet_rows_are_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import test_parquet

    test_parquet.write(
        tmp_path / "train.parquet",
        [*test_parquet.values(5), b"x", plain_png((9, 9, 9))],
        [0, 1, 2] * 2 + [0],
    )
    report = check_data(str(tmp_path))
    assert [name for name, _ in found(report)["unreadable"].images] == [
        f"{tmp_path / 'train.parquet'}, row 5"
    ]


def test_json_says_the_same(folder: Path) -> None:
    (folder / "test/cat/leak.png").write_bytes((folder / "labeled/cat/3.png").read_bytes())
    report = check_data(str(folder))
    values = json.loads(json.dumps(report.to_dict()))
    assert values["would_train"] is False
    assert values["counts"] == {"labeled": 18, "unlabeled": 8, "validation": 0, "test": 7}
    assert values["classes"] == [
        {"name": "cat", "labeled": 12, "validation": 0, "test": 4},
        {"name": "dog", "labeled": 6, "validation": 0, "test": 3},
    ]
    assert values["imbalance_ratio"] == 2
    assert values["training_shape"] == [3, 40, 40]
    assert [finding["code"] for finding in values["findings"]] == ["leak"]
    assert values["findings"][0]["images"][0]["name"].endswith("leak.png")


def test_a_burst_of_one_scene_names_each_frame_once_and_hides_no_leak(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    scene = np.kron(random.integers(60, 200, (8, 8, 3)), np.ones((8, 8, 1)))
    frames = np.clip(scene + random.normal(0, 6, (402, 64, 64, 3)), 0, 255).astype(np.uint8)
    other = random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    path = tmp_path / "burst.npz"
    labeled, test = np.concatenate([frames[:1], other]), frames[1:2]
    np.savez(
        path,
        images=labeled,
        labels=[0, 1],
        test_images=test,
        test_labels=[0],
        unlabeled_images=frames[2:],
    )
    findings = found(check_data(str(path)))
    # Of 80,000 pairs: the frames between the two in the order of hashes are more than are compared.
    assert findings["near-leak"].images == (("test image 0", "looks like train image 0"),)
    names = [name for name, _ in findings["near-unlabeled-unlabeled"].images]
    assert 390 <= len(names) == len(set(names)) <= 399


def test_many_copies_of_several_labels_are_named_in_linear_time() -> None:
    labels = np.repeat([0, 1], 50_000)
    pairs = find_copies({"train": dict.fromkeys(range(100_000), b"same")}, labels).conflicts
    assert [pair[0] for pair in pairs] == list(range(100_000))
    assert all(labels[index] != labels[other] for index, other in pairs)
