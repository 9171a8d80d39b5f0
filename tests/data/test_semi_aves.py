"""Semi-Aves from a small folder of the published layout: 200 species, one labeled image of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from daso.cli import main
from daso.data import read_listing as decoding
from daso.data.benchmarks import semi_aves
from daso.data.benchmarks.semi_aves import CLASSES
from daso.data.images import memory
from daso.data.listing import Reading
from daso.data.open import open_source
from daso.data.source import Source
from daso.errors import DataError, OptionError

IN_CLASS, OUT_OF_CLASS, TEST = 12, 6, 20


def read_semi_aves(folder: Path, *, open_set: bool = False, **reading: Any) -> Source:
    return semi_aves.read_semi_aves(folder, Reading(**reading), open_set=open_set)


def picture(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 100, 200)).save(path, quality=95)


def write_list(folder: Path, name: str, labels: Sequence[tuple[str, int]]) -> None:
    (folder / name).write_text("".join(f"{path} {label}\n" for path, label in labels))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "semi_aves"
    pools: dict[str, list[tuple[str, int]]] = {
        "l_train_val.txt": [(f"trainval_images/{label}/3.jpg", label) for label in range(CLASSES)],
        "u_train_in.txt": [(f"u_train_in/{number}.jpg", -1) for number in range(IN_CLASS)],
        "u_train_out.txt": [(f"u_train_out/{number}.jpg", -1) for number in range(OUT_OF_CLASS)],
        # As published: sorted by label, so not by the file's number.
        "test.txt": [(f"test/{7 * label % TEST}.jpg", label) for label in range(TEST)],
    }
    for name, labels in pools.items():
        for number, (path, label) in enumerate(labels):
            picture(folder / path, label if label >= 0 else number)
        write_list(folder, name, labels)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "semi_aves"))


def reds(source: Source, part: str) -> list[int]:
    return [int(value) for value in getattr(source, part).images[:, 0].mean((1, 2)).round()]


def add_line(folder: Path, name: str, line: str) -> None:
    with (folder / name).open("a") as file:
        file.write(line + "\n")


def test_the_pools_in_the_order_of_their_lists(published: Path) -> None:
    for place in (published, published.parent):
        source = read_semi_aves(place, size=8)
        assert source.name == "semi-aves"
        assert source.class_names == tuple(str(label) for label in range(200))
        assert source.train.images.shape == (200, 3, 8, 8)
        assert source.train.labels.tolist() == list(range(200))
        assert source.train.paths[1] == str(published / "trainval_images/1/3.jpg")
        assert source.test is not None
        assert source.test.labels.tolist() == list(range(TEST))
        assert source.unlabeled is not None
        assert source.unlabeled.labels.tolist() == [-1] * IN_CLASS
        assert source.validation is None
        # JPEG keeps a flat color to a few levels.
        for part in ("train", "test", "unlabeled"):
            assert all(abs(red - number) <= 4 for number, red in enumerate(reds(source, part)))


def test_the_open_set_has_other_species_behind_and_calls_them_unknown(folder: Path) -> None:
    labels = [(f"u_train_out/{number}.jpg", 200 + number) for number in range(OUT_OF_CLASS)]
    write_list(folder, "u_train_out.txt", labels)
    source = read_semi_aves(folder, open_set=True, size=8)
    assert source.name == "semi-aves-open"
    assert source.unlabeled is not None
    assert source.unlabeled.labels.tolist() == [-1] * (IN_CLASS + OUT_OF_CLASS)
    assert source.unlabeled.paths[IN_CLASS] == str(folder / "u_train_out/0.jpg")


def test_published_truth_is_taken_for_evaluation(folder: Path) -> None:
    truth = [(f"u_train_in/{number}.jpg", 5 * number) for number in (3, 1, 2)]
    write_list(folder, "u_train_in_oracle.txt", truth)
    source = read_semi_aves(folder, open_set=True, size=8)
    assert source.unlabeled is not None
    assert source.unlabeled.labels[:5].tolist() == [-1, 5, 10, 15, -1]
    assert set(source.unlabeled.labels[IN_CLASS:].tolist()) == {-1}
    add_line(folder, "u_train_in_oracle.txt", "u_train_in/4.jpg 200")
    with pytest.raises(
        DataError, match=r"oracle\.txt, line 4: label 200 is out of range, -1 to 199"
    ):
        read_semi_aves(folder, size=8)


def test_the_central_square_at_224_unless_told(folder: Path) -> None:
    image = Image.new("RGB", (400, 100))
    image.paste((200, 50, 50), (150, 0, 250, 100))
    image.save(folder / "trainval_images/0/3.jpg", quality=95)
    source = read_semi_aves(folder)
    assert source.train.images.shape[1:] == (3, 224, 224)
    assert abs(source.train.images[0, 0].astype(int) - 200).mean() < 5
    with pytest.raises(OptionError, match=r"--size.* at least 1"):
        read_semi_aves(folder, size=0)


BAD_LINES = [
    ("l_train_val.txt", "trainval_images/0/3.jpg", "expected a path and a label"),
    ("l_train_val.txt", "7", "expected a path and a label"),
    ("l_train_val.txt", "trainval_images/0/3.jpg 1.5", "expected a path and a label"),
    ("l_train_val.txt", "trainval_images/0/3.jpg ²", "expected a path and a label"),
    ("l_train_val.txt", "trainval_images/0/3.jpg " + 30 * "9", "expected a path and a label"),
    ("l_train_val.txt", "trainval_images/0/1.jpg 0", "no image trainval_images/0/1.jpg"),
    ("l_train_val.txt", "trainval_images/0/3.jpg 1", "is named twice"),
    ("l_train_val.txt", "trainval_images 1", "no image trainval_images"),
    ("l_train_val.txt", "trainval_images/0/3.jpg 200", "label 200 is out of range, 0 to 199"),
    ("u_train_in.txt", "u_train_in/0.jpg -2", "label -2 is out of range, -1 to 199"),
    ("u_train_in.txt", "../elsewhere.jpg -1", "leads out of the folder"),
    ("u_train_in.txt", "u_train_in/../../elsewhere.jpg -1", "leads out of the folder"),
    ("u_train_in.txt", "/etc/passwd -1", "leads out of the folder"),
    ("u_train_in.txt", "..\\elsewhere.jpg -1", "leads out of the folder"),
    ("u_train_in.txt", ". -1", "leads out of the folder"),
    ("test.txt", "test/0.jpg -1", "label -1 is out of range, 0 to 199"),
    ("u_train_out.txt", "u_train_out/12.jpg -1", "no image u_train_out/12.jpg"),
]


def test_lines_that_cannot_be_used_are_named_or_skipped(folder: Path) -> None:
    picture(folder.parent / "elsewhere.jpg", 0)
    expected = []
    for name, line, _ in BAD_LINES:
        add_line(folder, name, line)
        expected.append(f"{folder / name}, line {len((folder / name).read_text().splitlines())}")
    with pytest.raises(DataError, match=rf"{len(BAD_LINES)} line") as caught:
        read_semi_aves(folder, open_set=True, size=8)
    _, *told, published_at, advice = str(caught.value).splitlines()
    for where, (_, _, reason), one in zip(expected, BAD_LINES, told, strict=True):
        assert one.startswith(f"  {where}: ")
        assert reason in one
    assert "https://" in published_at
    assert "--skip-bad" in advice
    source = read_semi_aves(folder, open_set=True, size=8, skip_bad=True)
    assert [where for where, _ in source.skipped] == expected
    assert source.unlabeled is not None
    assert (len(source.train), len(source.unlabeled)) == (200, IN_CLASS + OUT_OF_CLASS)


def test_spaces_in_paths_and_empty_lines(folder: Path) -> None:
    picture(folder / "u_train_in" / "a bird.jpg", 7)
    add_line(folder, "u_train_in.txt", "\nu_train_in/a bird.jpg\t-1\n")
    source = read_semi_aves(folder, size=8)
    assert source.unlabeled is not None
    assert source.unlabeled.paths[-1].endswith("a bird.jpg")


def test_a_long_list_of_bad_lines_is_cut(folder: Path) -> None:
    add_line(
        folder,
        "u_train_in.txt",
        "\n".join(f"u_train_in/{number}.jpg -1" for number in range(50, 75)),
    )
    with pytest.raises(DataError, match=r"25 line.*\n(.*\n){20}  and 5 more"):
        read_semi_aves(folder, size=8)


def test_unreadable_images_are_named_or_skipped(folder: Path) -> None:
    damaged = folder / "trainval_images/5/3.jpg"
    damaged.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 image could not be read:\n.*5/3\.jpg"):
        read_semi_aves(folder, size=8)
    picture(folder / "trainval_images/5/4.jpg", 5)
    add_line(folder, "l_train_val.txt", "trainval_images/5/4.jpg 5")
    source = read_semi_aves(folder, size=8, skip_bad=True)
    assert [name for name, _ in source.skipped] == [str(damaged)]
    (folder / "trainval_images/5/4.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="no readable labeled image of class '5'"):
        read_semi_aves(folder, size=8, skip_bad=True)
    picture(folder / "trainval_images/5/4.jpg", 5)
    for image in (folder / "test").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(DataError, match="no readable test image"):
        read_semi_aves(folder, size=8, skip_bad=True)


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "u_train_out").rename(folder.parent / "away")
    read_semi_aves(folder, size=8)
    with pytest.raises(
        DataError, match=r"u_train_out\.txt, line 1: .* no folder .*u_train_out; .*https://"
    ):
        read_semi_aves(folder, open_set=True, size=8, skip_bad=True)
    (folder / "u_train_out.txt").unlink()
    with pytest.raises(DataError, match=r"semi_aves: missing u_train_out\.txt$"):
        read_semi_aves(folder, open_set=True)
    lines = (folder / "l_train_val.txt").read_text().splitlines()
    (folder / "l_train_val.txt").write_text("\n".join(lines[2:]))
    with pytest.raises(DataError, match=r"l_train_val\.txt: no labeled image of class '0', '1'"):
        read_semi_aves(folder, size=8)
    (folder / "test.txt").write_text("test/99.jpg 0\n")
    with pytest.raises(
        DataError, match=r"test\.txt: names no existing image; .*line 1: no image test/99"
    ):
        read_semi_aves(folder, size=8)
    (folder / "test.txt").write_text("\n")
    with pytest.raises(DataError, match=r"test\.txt: names no existing image"):
        read_semi_aves(folder, size=8)
    with pytest.raises(DataError, match="no such folder"):
        read_semi_aves(folder / "nowhere")


def test_the_memory_is_counted_before_anything_is_decoded(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = CLASSES + TEST + IN_CLASS
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * count * 100 * 100)
    monkeypatch.setattr(decoding, "work_through", None)
    with pytest.raises(
        DataError, match=r"232 images of 224 x 224 .* 0\.0 GB .* --size, at most 96"
    ):
        read_semi_aves(published)
    monkeypatch.undo()
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * count * 8 * 8)
    assert read_semi_aves(published, size=8).train.images.shape[2:] == (8, 8)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert read_semi_aves(published, size=8).train.images.shape[2:] == (8, 8)


@pytest.mark.parametrize("place", ["semi_aves", "."])
def test_species_names(folder: Path, place: str) -> None:
    names = (folder if place == "semi_aves" else folder.parent) / "semi_aves_species_names.txt"
    names.write_text("".join(f"{label} Genus_species{label}\n" for label in range(200)))
    assert read_semi_aves(folder, size=8).class_names[17] == "Genus species17"
    names.write_text("0 Anas_platyrhynchos\n")
    with pytest.raises(DataError, match="for each label from 0 to 199"):
        read_semi_aves(folder, size=8)


def test_found_by_name_and_by_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    with pytest.raises(DataError, match="--download cannot fetch them") as caught:
        open_source("semi-aves-open", download=True)
    assert "https://github.com/cvl-umass/semi-inat-2020" in str(caught.value)
    assert open_source(str(folder), size=8).name == "semi-aves"
    for place in ("data/semi_aves", "data/semi-aves"):
        Path("data").mkdir(exist_ok=True)
        folder = folder.rename(Path(place).resolve())
        for name in ("semi-aves", "semi-aves-open"):
            source = open_source(name, size=8)
            assert (source.name, source.place) == (name, str(folder))


def test_trained_on_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = [(f"u_train_in/{number}.jpg", number) for number in range(9)]
    write_list(folder, "u_train_in_oracle.txt", truth)
    add_line(folder, "u_train_in.txt", "u_train_in/40.jpg -1")
    run = tmp_path / "run"
    options = "--skip-bad --size 16 --network small-4 --batch 4 --steps 4 --device cpu"
    command = ["train", "semi-aves-open", "--data", str(folder), "--out", str(run)]
    assert main([*command, *options.split()]) == 0
    told = capsys.readouterr().err
    assert "200 labeled images 16x16 of 200 classes" in told
    assert "18 unlabeled, 20 test" in told
    assert "4 steps of 4 labeled images and 20 unlabeled" in told
    assert f"skipped {folder / 'u_train_in.txt'}, line 13: no image u_train_in/40.jpg" in told
    config = json.loads((run / "config.json").read_text())
    assert (config["size"], config["data"]) == (16, str(folder))
    assert config["augmentation"]["crop"] == "resized"
    assert (config["train"]["learning_rate"], config["train"]["schedule"]) == (0.04, "thirds")
    assert json.loads((run / "summary.json").read_text())["measured_on"] == "test"
    assert main(["evaluate", str(run)]) == 0
