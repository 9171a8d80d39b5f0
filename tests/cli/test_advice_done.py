"""Advice of errors and notes, done as it says: one list, besides ``test_advice.py``."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from label_sets import label_some, write_folder, write_set
from made_files import png, write_image, write_tar
from PIL import Image

from daso.cli import main
from daso.data.journal import Journal
from daso.errors import RunError
from daso.files import read_json
from tests.conftest import Say

QUICK = ["--method", "supervised", "--network", "small-4", "--steps", "2", "--batch", "4"]
QUICK += ["--device", "cpu", "--size", "8", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on the folder ``photos`` beside it."""
    place = tmp_path_factory.mktemp("advice")
    write_folder(place / "photos")
    assert main(["train", str(place / "photos"), *QUICK, "--out", str(place / "run")]) == 0
    return place / "run"


def test_an_array_is_given_as_advised(run: Path, say: Say, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "two.npz", a=images, b=images)
    status, said = say("predict", run, tmp_path / "two.npz")
    assert status == 1
    (name,) = re.findall(r"rename one to '(\w+)'", said)
    np.savez(tmp_path / "named.npz", **{name: images, "b": images})
    assert say("predict", run, tmp_path / "named.npz")[0] == 0
    np.save(tmp_path / "one.npy", images[0])
    status, said = say("predict", run, tmp_path / "one.npy")
    assert status == 1
    assert "image[None]" in said
    np.save(tmp_path / "one.npy", images[0][None])
    assert say("predict", run, tmp_path / "one.npy")[0] == 0


def test_a_prediction_is_written_and_resumed_as_advised(
    run: Path, say: Say, tmp_path: Path
) -> None:
    photos = run.parent / "photos" / "test"
    status, said = say("predict", run, photos, "--out", tmp_path / "x.txt")
    assert status != 0
    for suffix in re.findall(r"\.[a-z]+(?=,|$)", said.split("choose from")[1].strip()):
        assert say("predict", run, photos, "--out", tmp_path / f"x{suffix}")[0] == 0
    assert "add --out" in say("predict", run, photos, "--resume")[1]
    assert say("predict", run, photos, "--resume", "--out", tmp_path / "x.csv")[0] == 0
    partial = tmp_path / "x.csv.partial"
    for written, words in (("", ["--resume"]), ("", None), ('{"daso predict": "0"}\n', None)):
        partial.write_text(written)
        status, said = say("predict", run, photos, "--out", tmp_path / "x.csv")
        assert status != 0
        assert "continue it with --resume, or delete it" in said
        if written:
            said = say("predict", run, photos, "--out", tmp_path / "x.csv", "--resume")[1]
            assert "delete it" in said
        if words is None:
            partial.unlink()
        assert say("predict", run, photos, "--out", tmp_path / "x.csv", *(words or ()))[0] == 0


def test_a_prior_is_given_as_advised(run: Path, say: Say, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("3")
    status, said = say(
        "predict", run, run.parent / "photos" / "test", "--prior", tmp_path / "p.json"
    )
    assert status != 0
    shares = json.loads(re.findall(r"\{.*?\}", said)[0])  # of these very classes
    (tmp_path / "p.json").write_text(json.dumps(shares))
    status, said = say(
        "predict", run, run.parent / "photos" / "test", "--prior", tmp_path / "p.json"
    )
    assert status == 0, said


def test_the_place_of_images_is_given_as_advised(run: Path, say: Say, tmp_path: Path) -> None:
    here = write_folder(tmp_path / "photos")
    (here / "labeled" / "cat" / "00.png").unlink()
    write_image(here / "lists" / "m.csv", 0)
    rows = [
        f"{(n % 2 and '../') or ''}labeled/{k}/0{n}.png,{k}"
        for k in ("cat", "dog")
        for n in (1, 2, 3)
    ]
    (here / "lists" / "m.csv").write_text("\n".join(["path,label", *rows]))
    status, said = say("data", "check", here / "lists" / "m.csv")
    assert status != 0
    assert "give the folder of all images with --data" in said
    (here / "lists" / "m.csv").write_text(
        "\n".join(["path,label", *(r.replace("../", "") for r in rows)])
    )
    status, said = say("data", "check", here / "lists" / "m.csv", "--data", here)
    assert status == 0, said


def test_shards_are_written_as_advised(say: Say, tmp_path: Path) -> None:
    images = [png(np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)) for n in range(9)]
    some = [
        (f"{n}.{e}", c)
        for n in range(6)
        for e, c in (("png", images[n]), ("cls", b"01"[n % 2 :][:1]))
    ]
    write_tar(tmp_path / "train-0.tar", some)
    write_tar(tmp_path / "train-1.tar", [("7.png", images[7])])
    status, said = say("data", "check", tmp_path)
    assert status != 0
    (name,) = re.findall(r"move them to (\S+)\*\.tar", said)
    (tmp_path / "train-1.tar").rename(tmp_path / f"{name}0.tar")
    assert "1 unlabeled" in say("data", "check", tmp_path)[1]
    write_tar(tmp_path / "unlabeled-1.tar", [("cam.1.png", images[8])])
    status, said = say("data", "check", tmp_path)
    assert status != 0
    assert "write _ for the other points" in said
    write_tar(tmp_path / "unlabeled-1.tar", [("cam_1.png", images[8])])
    assert "2 unlabeled" in say("data", "check", tmp_path)[1]


def test_labels_leave_the_page_as_advised(say: Say, tmp_path: Path) -> None:
    source = write_set(tmp_path / "set", "manifest")
    label_some(source, {0: "fox", 1: "cat", 2: "fox"})
    status, said = say("label", source, "--apply")
    assert status != 0
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "labels.csv"
    assert "--export FILE.csv" in said
    status, said = say("label", source, "--export", out)
    assert status == 0
    assert "train on it with: daso train" in said
    (command,) = re.findall(r"train on it with: daso (train .*)", said)
    status, said = say(*command.split(), *QUICK, "--out", tmp_path / "run")
    assert status == 0, said
    assert read_json(tmp_path / "run" / "data.json")["class_names"] == ["cat", "dog", "fox"]


def test_damage_of_labels_is_mended_as_advised(say: Say, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    journal = label_some(folder, {0: "cat", 1: "dog"})
    journal.write_text(journal.read_text().replace('"dog"', '"cow"'))
    status, said = say("data", "check", folder)
    assert status != 0
    (name,) = re.findall(r"take its (\w+) out", said)
    journal.write_text(
        re.sub(rf', "{name}": "\w+"', "", journal.read_text().replace('"cow"', '"dog"'))
    )
    assert len(Journal.read(journal).decisions()) == 2
    plan = folder / ".daso-labels.jsonl.apply"
    plan.write_text("{")
    status, said = say("label", folder, "--apply")
    assert status != 0
    assert "remove it to plan anew" in said
    plan.unlink()
    assert say("label", folder, "--apply")[0] == 0
    status, said = say("label", folder, *re.findall(r"--\w+", "--apply --undo"))
    assert status == 0
    assert "2 files were put back" in said


def test_a_sorting_is_taken_back_as_advised(say: Say, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    label_some(folder, {0: "cat", 1: "dog"})
    assert say("label", folder, "--apply")[0] == 0
    (folder / "labeled" / "cat" / "00-2.png").unlink()
    advice = r"'daso (label \S+ --apply --undo)' takes all sorting back"
    status, said = say("data", "check", folder)
    (words,) = re.findall(advice, said)
    assert say(*words.split())[0] == 0
    status, said = say("data", "check", folder)
    assert status == 0
    assert "2 labels of daso label are used" in said
    assert not re.search(advice, said)


def test_images_are_named_as_advised(say: Say, run: Path, tmp_path: Path) -> None:
    photos = run.parent / "photos"
    status, said = say(
        "export", run, "--out", tmp_path / "m.safetensors", "--format", "safetensors"
    )
    assert status == 0, said
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    hidden = photos.rename(tmp_path / "moved")
    try:
        for words in (["evaluate", run], ["resume", run], ["train", "--like", run, "--out", "x"]):
            status, said = say(*words)
            assert status != 0
            assert f"not at {photos}; name their present place with --data" in said
        status, said = say("evaluate", run, "--data", hidden)
        assert status == 0, said
        labels = tmp_path / "labels.csv"
        status, said = say("label", run, "--export", labels)
        assert status != 0
        assert "label them where they are now: daso label FOLDER" in said
        status, said = say("label", hidden, "--export", labels)
        assert status == 0, said
    finally:
        hidden.rename(photos)


def test_another_port_is_chosen_as_advised() -> None:
    bind = pytest.importorskip("daso.label.web.server").bind
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match="choose another with --port"):
            bind("127.0.0.1", taken.getsockname()[1])
        bind("127.0.0.1", 0).close()
